//! [`Slots`]: the hash slots of each cluster node.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::Value;

/// The number of slots in a cluster (Redis Cluster specification, "Key distribution model").
const SLOTS: u16 = 16_384;

/// The address of a node, as the cluster reports it.
pub(super) type Node = Arc<str>;

/// The ranges of slots, each with its primary node. Empty for a single server.
#[derive(Debug, Default)]
pub(super) struct Slots(Vec<(u16, u16, Node)>);

impl Slots {
    /// Parses the answer to `CLUSTER SLOTS`. Skips ranges that are malformed.
    pub(super) fn read(answer: &[Value]) -> Self {
        Self(answer.iter().filter_map(read_range).collect())
    }

    /// Returns the node that owns the slot of `key`.
    pub(super) fn owner(&self, key: &str) -> Option<&Node> {
        if self.0.is_empty() {
            return None;
        }
        let slot = slot(key);
        let contains = |(first, last, _): &&(u16, u16, Node)| (*first..=*last).contains(&slot);
        self.0.iter().find(contains).map(|(_, _, node)| node)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn nodes(&self) -> BTreeSet<Node> {
        self.0.iter().map(|(_, _, node)| node.clone()).collect()
    }
}

/// Reads the first slot, the last slot and the primary node of a range.
fn read_range(range: &Value) -> Option<(u16, u16, Node)> {
    let Value::Array(range) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(node), ..] = range.as_slice() else {
        return None;
    };
    let [host, Value::Int(port), ..] = node.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) => String::from_utf8_lossy(host).into_owned(),
        Value::SimpleString(host) => host.clone(),
        _ => String::new(),
    };
    Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, format!("{host}:{port}").into()))
}

/// Returns the slot of a key. Only the text between the first braces counts, unless it is empty.
fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let tag = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key).as_bytes()) % SLOTS
}

/// Computes the CRC-16/XMODEM checksum that the specification prescribes.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_match_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (one, other) in [("{user1000}.following", "{user1000}.followers"), ("a{x}b{y}", "x")] {
            assert_eq!(slot(one), slot(other));
        }
        assert_eq!(slot("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot("foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
    }

    #[test]
    fn owner_is_read_from_answer() {
        let node =
            |host: &str, port| Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)]);
        let answer = [
            Value::Array(vec![Value::Int(0), Value::Int(8191), node("a", 1), node("replica", 2)]),
            Value::Array(vec![Value::Int(8192), Value::Int(16383), node("b", 3)]),
            Value::Nil,
        ];
        let slots = Slots::read(&answer);
        // `foo` is in slot 12182, `bar` in slot 5061.
        assert_eq!(slots.owner("foo").map(|node| &**node), Some("b:3"));
        assert_eq!(slots.owner("bar").map(|node| &**node), Some("a:1"));
        assert_eq!(slots.nodes().len(), 2);
        assert_eq!(Slots::default().owner("foo"), None);
    }
}
