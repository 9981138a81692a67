//! LZF, the packing of PCD's `binary_compressed`: runs of literals and references into the last 8 KiB.

/// Unpacks `packed` to exactly `size` bytes, or tells at which packed byte it breaks.
///
/// Memory: at most `size`, and no more than the packed bytes can yield (88 times their number).
pub(crate) fn unpack(packed: &[u8], size: usize) -> Result<Vec<u8>, usize> {
    // Three packed bytes yield 264 at most.
    if size > packed.len().saturating_mul(88).saturating_add(264) {
        return Err(packed.len());
    }
    let mut out = Vec::with_capacity(size);
    let mut at = 0;
    while at < packed.len() {
        let start = at;
        let control = usize::from(packed[at]);
        at += 1;
        if control < 32 {
            let literals = packed.get(at..at + control + 1).ok_or(start)?;
            at += literals.len();
            out.extend_from_slice(literals);
        } else {
            let mut length = control >> 5;
            let mut next = || {
                let byte = packed.get(at).copied().ok_or(start);
                at += 1;
                byte.map(usize::from)
            };
            if length == 7 {
                length += next()?;
            }
            let distance = ((control & 31) << 8) + next()? + 1;
            let from = out.len().checked_sub(distance).ok_or(start)?;
            for i in from..from + length + 2 {
                // A reference may run into what it writes.
                let byte = out[i];
                out.push(byte);
            }
        }
        if out.len() > size {
            return Err(start);
        }
    }
    if out.len() == size { Ok(out) } else { Err(packed.len()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn literals_and_overlapping_references_unpack() {
        // "ab", then 9 + 2 + 1 bytes from 2 back: length 7 + 3 + 2 = 12
        let packed = [1, b'a', b'b', 7 << 5, 3, 1];
        assert_eq!(unpack(&packed, 14).unwrap(), b"ababababababab");
    }

    #[test]
    fn broken_streams_are_refused() {
        assert!(unpack(&[5, b'a'], 6).is_err(), "literals cut off");
        assert!(unpack(&[32, 0], 3).is_err(), "reference before the start");
        assert!(unpack(&[0, b'a'], 2).is_err(), "too few bytes");
        assert!(unpack(&[1, b'a', b'b'], 1).is_err(), "too many bytes");
        assert!(unpack(&[0, b'a'], 1 << 40).is_err(), "size beyond what can come");
        assert!(unpack(&[], 1).is_err());
        assert_eq!(unpack(&[], 0).unwrap(), b"");
    }
}
