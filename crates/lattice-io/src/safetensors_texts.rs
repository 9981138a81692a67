//! The texts in the header of a safetensors file, without its tensors.

use std::collections::BTreeMap;
use std::io::Read;

/// Longest header that the format allows.
pub const LONGEST_SAFETENSORS_HEADER: u64 = 100_000_000;

/// The texts of a safetensors file's metadata, by name; none where it has no metadata. Of the file only the header is read: the length of a JSON
/// object in 8 bytes, then the object.
///
/// # Errors
/// What was found in place of a header, to stand behind "expected a complete .safetensors file, found": an end, a length past
/// [`LONGEST_SAFETENSORS_HEADER`], what is no JSON object, metadata that are no texts.
pub fn safetensors_texts(file: &mut impl Read) -> Result<BTreeMap<String, String>, String> {
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| e.to_string())?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_SAFETENSORS_HEADER {
        return Err(format!("a header of {length} bytes"));
    }
    // Memory grows with what is there, not with what is asked for.
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text).map_err(|e| e.to_string())?;
    if (text.len() as u64) < length {
        return Err(format!("its end after {} of {length} bytes of its header", text.len()));
    }
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&text).map_err(|e| format!("a header that is no JSON: {e}"))?;
    let Some(texts) = header.get("__metadata__") else { return Ok(BTreeMap::new()) };
    let text =
        |(name, value): (&String, &serde_json::Value)| Some((name.clone(), value.as_str()?.to_owned()));
    let texts = texts.as_object().and_then(|texts| texts.iter().map(text).collect());
    texts.ok_or_else(|| "a header that is no JSON: metadata that are no texts".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(header: &str, length: u64) -> Result<Vec<(String, String)>, String> {
        let bytes = [&length.to_le_bytes(), header.as_bytes(), &[9; 4]].concat();
        safetensors_texts(&mut bytes.as_slice()).map(|texts| texts.into_iter().collect())
    }

    #[test]
    fn texts_are_found_and_tensors_are_not_read() {
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let header =
            r#"{"__metadata__":{"b":"2","a":"\"1\""},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let found = texts(header, header.len() as u64).expect("texts");
        assert_eq!(found, [pair("a", "\"1\""), pair("b", "2")]);
        assert_eq!(texts("{}  ", 4), Ok(vec![]));
    }

    #[test]
    fn what_is_no_header_is_said() {
        for (header, length, part) in [
            ("", u64::MAX, "a header of 18446744073709551615 bytes"),
            ("{", 1, "no JSON"),
            ("{}", 90_000_000, "its end after 6 of 90000000 bytes"),
            ("[1]", 3, "no JSON"),
            (r#"{"__metadata__":{"a":1}}"#, 24, "no texts"),
            (r#"{"__metadata__":["a"]}"#, 22, "no texts"),
        ] {
            let found = texts(header, length).expect_err(header);
            assert!(found.contains(part), "{found}");
        }
        assert!(safetensors_texts(&mut [1u8, 2].as_slice()).is_err());
    }
}
