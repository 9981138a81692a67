//! CPU kernels over sparse voxel relations: slices in, slices out.
