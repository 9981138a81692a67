//! From the labels that files hold to the classes that a network learns.

use serde::{Deserialize, Serialize};

/// The label of points that are neither learned nor scored.
pub(crate) const IGNORED: u8 = lattice_scenes::IGNORED;

/// How labels of files become classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelMap {
    /// The label is the class; 255 is ignored.
    #[default]
    Classes,
    /// SemanticKITTI class indices 0 to 19 to the lidar classes; 0 is ignored.
    SemanticKitti,
    /// Raw SemanticKITTI ids, the low half of a `.label` file's words, to the lidar classes.
    SemanticKittiRaw,
}

impl LabelMap {
    /// All maps.
    pub const ALL: [Self; 3] = [Self::Classes, Self::SemanticKitti, Self::SemanticKittiRaw];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classes => "classes",
            Self::SemanticKitti => "semantic-kitti",
            Self::SemanticKittiRaw => "semantic-kitti-raw",
        }
    }

    /// The class of a label, 255 where it is ignored; `None` where there is no such label among `classes`.
    pub fn class(self, label: f64, classes: usize) -> Option<u8> {
        if label.fract() != 0.0 || !(0.0..65_536.0).contains(&label) {
            return None;
        }
        let label = label as u16;
        let class = match self {
            Self::Classes => u8::try_from(label).ok()?,
            Self::SemanticKitti => lidar_class(u8::try_from(label).ok()?)?,
            Self::SemanticKittiRaw => lidar_class(learning_class(label)?)?,
        };
        (class == IGNORED || usize::from(class) < classes).then_some(class)
    }

    /// The labels that it takes, for messages.
    pub(crate) fn expected(self, classes: usize) -> String {
        match self {
            Self::Classes => format!("labels below {classes}, or 255 for points to ignore"),
            Self::SemanticKitti => "SemanticKITTI class indices 0 to 19".into(),
            Self::SemanticKittiRaw => "SemanticKITTI ids such as 0, 10, 40, 252".into(),
        }
    }
}

/// SemanticKITTI's class index to ground 0, building 1, vehicle 2, vegetation 3, pole 4, person 5, other 6.
fn lidar_class(index: u8) -> Option<u8> {
    Some(match index {
        0 => IGNORED,
        1 | 4 | 5 => 2,
        2 | 3 | 14 => 6,
        6..=8 => 5,
        9..=12 | 17 => 0,
        13 => 1,
        15 | 16 => 3,
        18 | 19 => 4,
        _ => return None,
    })
}

/// SemanticKITTI's raw id to its class index; moving things (252 to 259) join those that stand.
fn learning_class(id: u16) -> Option<u8> {
    Some(match id {
        0 | 1 | 52 | 99 => 0,
        10 | 252 => 1,
        11 => 2,
        15 => 3,
        18 | 258 => 4,
        13 | 16 | 20 | 256 | 257 | 259 => 5,
        30 | 254 => 6,
        31 | 253 => 7,
        32 | 255 => 8,
        40 | 60 => 9,
        44 => 10,
        48 => 11,
        49 => 12,
        50 => 13,
        51 => 14,
        70 => 15,
        71 => 16,
        72 => 17,
        80 => 18,
        81 => 19,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_a_class_and_no_other_number_has() {
        let classes = |map: LabelMap, end: u32| {
            (0..end).filter_map(|label| map.class(f64::from(label), 7)).collect::<Vec<_>>()
        };
        let by_index = classes(LabelMap::SemanticKitti, 300);
        assert_eq!(by_index, [255, 2, 6, 6, 2, 2, 5, 5, 5, 0, 0, 0, 0, 1, 6, 3, 3, 0, 4, 4]);
        assert_eq!(classes(LabelMap::SemanticKittiRaw, 300).len(), 34);
        assert_eq!(LabelMap::SemanticKittiRaw.class(252.0, 7), Some(2));
        assert_eq!(LabelMap::SemanticKittiRaw.class(99.0, 7), Some(255));
    }

    #[test]
    fn labels_that_are_no_class_are_refused() {
        for bad in [7.0, 254.0, 256.0, -1.0, 0.5, f64::NAN, 1e9] {
            assert_eq!(LabelMap::Classes.class(bad, 7), None, "{bad}");
        }
        assert_eq!(LabelMap::Classes.class(255.0, 7), Some(IGNORED));
        // The lidar classes do not fit a network of fewer classes.
        assert_eq!(LabelMap::SemanticKitti.class(18.0, 4), None);
    }
}
