//! [`Names`]: a list of role or group names in one allocation.

/// Distinct names in the order sent, each followed by a NUL, which no name contains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    joined: String,
}

/// A name contains a NUL.
pub(super) struct InvalidName;

impl Names {
    /// Adds `name`, unless it is there already.
    pub(super) fn insert(&mut self, name: &str) -> Result<(), InvalidName> {
        if memchr::memchr(0, name.as_bytes()).is_some() {
            return Err(InvalidName);
        }
        if !self.iter().any(|held| held == name) {
            if self.joined.capacity() == 0 {
                self.joined.reserve(64);
            }
            self.joined.push_str(name);
            self.joined.push('\0');
        }
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.joined.split_terminator('\0')
    }

    pub(super) fn footprint(&self) -> usize {
        self.joined.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_order_without_repeats() {
        let mut names = Names::default();
        for name in ["b", "a b", "", "b", "é"] {
            assert!(names.insert(name).is_ok());
        }
        assert!(names.insert("a\0b").is_err());
        assert_eq!(names.iter().collect::<Vec<_>>(), ["b", "a b", "", "é"]);
        assert_eq!(Names::default().iter().count(), 0);
    }
}
