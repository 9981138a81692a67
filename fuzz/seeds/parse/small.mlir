module attributes {
    lattice.ir_version = 2 : i64,
    lattice.schema_digest = "1380f1e819fc0eb1af587202ecec3c14ec2c981d249333c5061f0263f82072ad",
    lattice.input_names = ["x_coords", "x_features", "x_active"],
    lattice.output_names = ["y", "z"],
    lattice.input_roles = ["sparse_coords", "sparse_features", "sparse_active"],
    lattice.output_roles = ["sparse_tensor", "tensor"],
    lattice.weight_file = "weights.safetensors"
} {
    func.func @forward(%x_coords: tensor<?x4xi32>, %x_features: tensor<?x2xf32>, %x_active: tensor<1xi32>) -> (!lattice.sparse_tensor<rank = 3, coord = batch_x_y_z, feature = row_channel, dtype = f32>, tensor<?x?xf32>) {
        %x = lattice.sparse.make %x_coords, %x_features, %x_active {stride = array<i64: 1, 1, 1>, coord_order = #lattice.coord<batch_x_y_z>} : (tensor<?x4xi32>, tensor<?x2xf32>, tensor<1xi32>) -> !lattice.sparse_tensor<rank = 3, coord = batch_x_y_z, feature = row_channel, dtype = f32>
        %w = lattice.weight @w {storage_key = "w", layout = #lattice.weight_layout<conv3d_o_xyz_i>, packing = #lattice.packing<dense>} : !lattice.weight<conv3d, f32>
        %q = lattice.weight @q {storage_key = "q", layout = #lattice.weight_layout<linear_o_i>, packing = #lattice.packing<int4, group_size = 32, scale_dtype = f32, mode = affine>} : !lattice.weight<linear, i4>
        %y = lattice.subm_conv3d %x, %w {kernel_size = array<i64: 3, 1, 1>, dilation = array<i64: 1, 1, 1>, accumulation = "canonical_f32"} : (!lattice.sparse_tensor<rank = 3, coord = batch_x_y_z, feature = row_channel, dtype = f32>, !lattice.weight<conv3d, f32>) -> !lattice.sparse_tensor<rank = 3, coord = batch_x_y_z, feature = row_channel, dtype = f32>
        %z = lattice.linear %x_features, %q : (tensor<?x2xf32>, !lattice.weight<linear, i4>) -> tensor<?x?xf32>
        return %y, %z : !lattice.sparse_tensor<rank = 3, coord = batch_x_y_z, feature = row_channel, dtype = f32>, tensor<?x?xf32>
    }
}
