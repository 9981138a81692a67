//! The header of a safetensors file in one order.
//!
//! The crate that writes these files keeps its texts in a hash map, so two files of the same content would differ in bytes.

/// Puts the names of a safetensors file's header, and of its texts, in ascending order, in place. Leaves alone what is no such file.
pub fn order_safetensors_header(file: &mut [u8]) {
    let Some((length, rest)) = file.split_first_chunk_mut::<8>() else { return };
    let Some(header) = usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|n| rest.get_mut(..n))
    else {
        return;
    };
    // Objects are held in the order of their names.
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(header) else { return };
    let text = value.to_string();
    if text.len() <= header.len() {
        header.fill(b' ');
        header[..text.len()].copy_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn headers_of_one_content_are_one() {
        let entry = r#""a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
        let mut one = file(&format!(r#"{{"__metadata__":{{"x":"1","b":"\"2\""}},{entry}}}  "#));
        let mut other = file(&format!(r#"{{{entry},"__metadata__":{{"b":"\"2\"","x":"1"}}}}  "#));
        assert_ne!(one, other);
        order_safetensors_header(&mut one);
        order_safetensors_header(&mut other);
        assert_eq!(one, other);
        assert_eq!(one[one.len() - 4..], [1, 2, 3, 4]);
    }

    #[test]
    fn what_is_no_such_file_is_left_alone() {
        for bytes in [vec![], vec![255; 8], file("no header"), vec![9, 0, 0, 0, 0, 0, 0, 0, b'{']] {
            let mut changed = bytes.clone();
            order_safetensors_header(&mut changed);
            assert_eq!(changed, bytes);
        }
    }
}
