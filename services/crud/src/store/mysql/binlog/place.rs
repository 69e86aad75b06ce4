//! Places in a server's binary log, as numbers in its order.

use proto::crud::Snapshot;

/// Bits of a place below the number of its file.
const OFFSET_BITS: u32 = 40;

/// A place in the binary log: a file, by its number, and an offset in it.
///
/// Transactions follow each other there in the order of their commits, whatever their GTIDs: several domains, and servers
/// that are not strict, have no order of GTIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BinlogPlace(pub u64);

impl BinlogPlace {
    /// A place in the file of this number.
    pub fn new(file: u32, offset: u64) -> Self {
        Self(u64::from(file) << OFFSET_BITS | offset.min((1 << OFFSET_BITS) - 1))
    }

    /// The number of its file.
    pub fn file(self) -> u32 {
        u32::try_from(self.0 >> OFFSET_BITS).unwrap_or(u32::MAX)
    }

    /// The offset in its file, in bytes.
    pub fn offset(self) -> u64 {
        self.0 & ((1 << OFFSET_BITS) - 1)
    }

    /// The place after an event, whose header has the lowest 32 bits of the offset after it.
    pub fn after_event(self, log_pos: u32) -> Self {
        let (offset, low) = (self.offset(), u64::from(log_pos));
        let mut after = offset & !u64::from(u32::MAX) | low;
        if after < offset {
            after += 1 << 32;
        }
        Self::new(self.file(), after)
    }

    /// What sees all transactions that begin before it.
    pub fn snapshot(self) -> Snapshot {
        Snapshot { start: self.0, end: self.0, running: Vec::new() }
    }
}

/// The base name and the number of a file of a binary log, as `host-bin.000012`.
pub fn parse_file(name: &str) -> Option<(&str, u32)> {
    let (base, number) = name.rsplit_once('.')?;
    Some((base, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_the_order_of_the_log() {
        assert!(BinlogPlace::new(1, 1 << 33) < BinlogPlace::new(2, 4));
        let place = BinlogPlace::new(999_999, 4321);
        assert_eq!((place.file(), place.offset()), (999_999, 4321));
        assert_eq!(parse_file("a.b-bin.000012"), Some(("a.b-bin", 12)));
        assert_eq!(parse_file("bin"), None);
    }

    #[test]
    fn offsets_go_on_where_a_header_has_no_room_for_them() {
        let place = BinlogPlace::new(1, u64::from(u32::MAX) - 10);
        assert_eq!(place.after_event(100).offset(), (1 << 32) + 100);
        assert_eq!(place.after_event(100).after_event(200).offset(), (1 << 32) + 200);
    }
}
