//! [`Asn1`]: an ECDSA signature in the form in which the library verifies it.

/// What tags and lengths take, and two numbers below the order of P-521 with a zero before each.
const LONGEST: usize = 3 + 2 * (2 + 1 + 66);

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// The length stands in the next octet: it has more than seven bits.
const LONG: u8 = 0x81;

/// `Ecdsa-Sig-Value` (RFC 3279 §2.2.3) in DER.
///
/// The library takes JWS signatures as they are, too; but then it makes two big numbers and an
/// encoding of them on the heap first, which is 1 % of an ES256 verification.
pub(super) struct Asn1 {
    octets: [u8; LONGEST],
    length: usize,
}

impl Asn1 {
    /// Of `r` and `s` end to end, each of so many octets (RFC 7518 §3.4); `None` if it is not that long.
    pub(super) fn of(signature: &[u8], coordinate: usize) -> Option<Self> {
        if signature.len() != 2 * coordinate {
            return None;
        }
        let (r, s) = signature.split_at_checked(coordinate)?;
        let (r, s) = (Integer::of(r)?, Integer::of(s)?);
        let length = u8::try_from(r.length() + s.length()).ok()?;
        let mut asn1 = Self { octets: [0; LONGEST], length: 0 };
        asn1.add(&[SEQUENCE])?;
        if length > 0x7f {
            asn1.add(&[LONG])?;
        }
        asn1.add(&[length])?;
        for Integer { zero, digits } in [r, s] {
            let length = u8::try_from(zero.len() + digits.len()).ok()?;
            asn1.add(&[INTEGER, length])?;
            asn1.add(zero)?;
            asn1.add(digits)?;
        }
        Some(asn1)
    }

    pub(super) fn as_octets(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    fn add(&mut self, octets: &[u8]) -> Option<()> {
        let end = self.length + octets.len();
        self.octets.get_mut(self.length..end)?.copy_from_slice(octets);
        self.length = end;
        Some(())
    }
}

/// A number that is not negative: as few octets as hold it, and a zero before them where the first
/// would be read as a sign.
struct Integer<'o> {
    zero: &'static [u8],
    digits: &'o [u8],
}

impl<'o> Integer<'o> {
    fn of(number: &'o [u8]) -> Option<Self> {
        let last = number.len().checked_sub(1)?;
        let first = number.iter().position(|octet| *octet != 0).unwrap_or(last);
        let digits = number.get(first..)?;
        let is_negative = digits.first().is_some_and(|octet| octet & 0x80 != 0);
        Some(Self { zero: if is_negative { &[0] } else { &[] }, digits })
    }

    /// With its tag.
    fn length(&self) -> usize {
        2 + self.zero.len() + self.digits.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asn1(signature: &[u8], coordinate: usize) -> Option<Vec<u8>> {
        Asn1::of(signature, coordinate).map(|asn1| asn1.as_octets().to_vec())
    }

    #[test]
    fn numbers_are_as_short_as_may_be_and_never_negative() {
        let table: [(&[u8], &[u8]); 6] = [
            (&[1, 2, 3, 4], &[0x30, 8, 2, 2, 1, 2, 2, 2, 3, 4]),
            (&[0, 2, 0, 0], &[0x30, 6, 2, 1, 2, 2, 1, 0]),
            (&[0x80, 0, 0, 0x80], &[0x30, 9, 2, 3, 0, 0x80, 0, 2, 2, 0, 0x80]),
            (&[0x7f, 0xff, 0xff, 0xff], &[0x30, 9, 2, 2, 0x7f, 0xff, 2, 3, 0, 0xff, 0xff]),
            (&[0, 0, 0, 0], &[0x30, 6, 2, 1, 0, 2, 1, 0]),
            (&[0, 0x80, 1, 0], &[0x30, 8, 2, 2, 0, 0x80, 2, 2, 1, 0]),
        ];
        for (signature, expected) in table {
            assert_eq!(asn1(signature, 2).as_deref(), Some(expected), "{signature:?}");
        }
    }

    #[test]
    fn a_signature_has_two_numbers_of_the_length_of_its_curve() {
        for (coordinate, length) in [(32, 2 + 2 * 35), (48, 2 + 2 * 51), (66, 3 + 2 * 69)] {
            let signature = vec![0xff; 2 * coordinate + 1];
            let encoded = asn1(&signature[1..], coordinate).unwrap();
            assert_eq!(encoded.len(), length);
            let head: &[u8] = if length > 0x7f { &[SEQUENCE, LONG] } else { &[SEQUENCE] };
            assert_eq!(
                (&encoded[..head.len()], encoded[head.len()]),
                (head, 2 * (coordinate as u8 + 3))
            );
            assert_eq!(asn1(&signature, coordinate), None);
            assert_eq!(asn1(&signature[2..], coordinate), None);
        }
        assert_eq!(asn1(b"", 32), None);
    }
}
