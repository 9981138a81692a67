use crate::SceneOptions;
pub fn generate(_s: u64, _o: &SceneOptions) -> lattice_io::PointCloud { Default::default() }
