//! Checkpoints as other libraries would write them: a network's parameters in their layouts and names, in a PyTorch file.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use lattice_import::Library;
use lattice_models::{ModelSpec, Network, ParameterPlace, ParameterRole};

/// Shape and values by name.
pub type Values = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

struct Collect(Vec<Vec<f32>>);

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().into_data().iter().collect());
    }
}

/// Parameters of a network that a seed drew, vectors made uneven too.
pub fn parameters(spec: &ModelSpec) -> Vec<(ParameterPlace, Vec<f32>)> {
    let network = spec.init(&Device::flex()).unwrap().seeded(1);
    let mut values = Collect(Vec::new());
    match &network {
        Network::MinkUNet(m) => m.visit(&mut values),
        Network::Second(m) => m.visit(&mut values),
        Network::PtBlock(m) => m.visit(&mut values),
        _ => panic!("no test asks for {}", spec.name),
    }
    let mut pairs: Vec<_> = network.parameters().into_iter().zip(values.0).collect();
    for (i, (place, values)) in pairs.iter_mut().enumerate() {
        if place.role == ParameterRole::Vector {
            values.iter_mut().enumerate().for_each(|(c, v)| *v = ((i * 31 + c * 7) % 13 + 13) as f32 / 26.0);
        }
    }
    pairs
}

/// How a layout lists a weight: `[cell along x, y, z, input, output channel]` at each place of its memory, and its shape.
fn listed(
    library: Library,
    role: ParameterRole,
    c_in: usize,
    c_out: usize,
    layout: &str,
) -> (Vec<usize>, Vec<[usize; 5]>) {
    use ParameterRole::{Convolution, Generative, Transposed};
    let (Convolution(kernel) | Transposed(kernel) | Generative(kernel)) = role else {
        panic!("no convolution")
    };
    let [kx, ky, kz] = kernel;
    let taps = kx * ky * kz;
    let mut all = Vec::new();
    let cells = |order: [usize; 3]| {
        // Row-major over the kernel's dimensions in this order of axes.
        let mut list = Vec::new();
        for a in 0..kernel[order[0]] {
            for b in 0..kernel[order[1]] {
                for c in 0..kernel[order[2]] {
                    let mut cell = [0; 3];
                    (cell[order[0]], cell[order[1]], cell[order[2]]) = (a, b, c);
                    list.push(cell);
                }
            }
        }
        list
    };
    let (xyz, zyx) = (cells([0, 1, 2]), cells([2, 1, 0]));
    let mut push = |cell: [usize; 3], ci: usize, co: usize| all.push([cell[0], cell[1], cell[2], ci, co]);
    match (library, layout) {
        (Library::Spconv, "1.x") => {
            zyx.iter().for_each(|c| (0..c_in).for_each(|i| (0..c_out).for_each(|o| push(*c, i, o))));
            (vec![kz, ky, kx, c_in, c_out], all)
        }
        (Library::Spconv, "2.0 native") => {
            zyx.iter().for_each(|c| (0..c_out).for_each(|o| (0..c_in).for_each(|i| push(*c, i, o))));
            (vec![kz, ky, kx, c_out, c_in], all)
        }
        (Library::Spconv | Library::Trellis, _) if taps == 1 => {
            (0..c_in).for_each(|i| (0..c_out).for_each(|o| push([0; 3], i, o)));
            (vec![c_out, 1, 1, 1, c_in], all)
        }
        (Library::Spconv, "2.2 zyx") => {
            (0..c_out).for_each(|o| zyx.iter().for_each(|c| (0..c_in).for_each(|i| push(*c, i, o))));
            (vec![c_out, kz, ky, kx, c_in], all)
        }
        (Library::Spconv | Library::Trellis, _) => {
            (0..c_out).for_each(|o| xyz.iter().for_each(|c| (0..c_in).for_each(|i| push(*c, i, o))));
            (vec![c_out, kx, ky, kz, c_in], all)
        }
        (Library::Fvdb, _) => {
            (0..c_out).for_each(|o| (0..c_in).for_each(|i| xyz.iter().for_each(|c| push(*c, i, o))));
            if taps == 1 { (vec![c_out, c_in], all) } else { (vec![c_out, c_in, kx, ky, kz], all) }
        }
        (Library::Ocnn, _) if matches!(role, Transposed(_)) => {
            xyz.iter().for_each(|c| (0..c_out).for_each(|o| (0..c_in).for_each(|i| push(*c, i, o))));
            (vec![taps, c_out, c_in], all)
        }
        (Library::Open3d, _) => {
            zyx.iter().for_each(|c| (0..c_in).for_each(|i| (0..c_out).for_each(|o| push(*c, i, o))));
            (vec![kz, ky, kx, c_in, c_out], all)
        }
        _ => {
            let x_fastest = library == Library::Minkowski || library == Library::Torchsparse && taps % 2 == 1;
            let cells = if x_fastest { zyx } else { xyz };
            cells.iter().for_each(|c| (0..c_in).for_each(|i| (0..c_out).for_each(|o| push(*c, i, o))));
            let matrix = taps == 1 && !matches!(library, Library::WarpConvNet | Library::Ocnn);
            if matrix { (vec![c_in, c_out], all) } else { (vec![taps, c_in, c_out], all) }
        }
    }
}

/// The parameters in a library's layout, under our paths.
pub fn laid_out(parameters: &[(ParameterPlace, Vec<f32>)], library: Library, layout: &str) -> Values {
    let convert = |(place, values): &(ParameterPlace, Vec<f32>)| {
        let shape = &place.shape;
        let stored = match place.role {
            ParameterRole::Vector => (shape.clone(), values.clone()),
            ParameterRole::Linear => {
                let (c_in, c_out) = (shape[0], shape[1]);
                let turned = (0..c_out).flat_map(|o| (0..c_in).map(move |i| values[i * c_out + o]));
                (vec![c_out, c_in], turned.collect())
            }
            role => {
                let (c_in, c_out) = (shape[1], shape[2]);
                let (dims, list) = listed(library, role, c_in, c_out, layout);
                let (ParameterRole::Convolution([_, ky, kz])
                | ParameterRole::Transposed([_, ky, kz])
                | ParameterRole::Generative([_, ky, kz])) = role
                else {
                    panic!("no convolution")
                };
                let at =
                    |[x, y, z, i, o]: [usize; 5]| values[(((x * ky + y) * kz + z) * c_in + i) * c_out + o];
                (dims, list.into_iter().map(at).collect())
            }
        };
        (place.path.clone(), stored)
    };
    parameters.iter().map(convert).collect()
}

fn replace_end(name: &str, from: &str, to: &str) -> Option<String> {
    name.strip_suffix(from).map(|start| format!("{start}{to}"))
}

/// Names of norms as PyTorch has them.
pub fn torch_norms(values: Values) -> Values {
    let rename = |name: String| {
        let renamed =
            replace_end(&name, ".gamma", ".weight").or_else(|| replace_end(&name, ".beta", ".bias"));
        renamed.unwrap_or(name)
    };
    values.into_iter().map(|(name, value)| (rename(name), value)).collect()
}

/// Names of MinkowskiEngine's U-Nets.
pub fn minkowski_names(values: Values) -> Values {
    let stage = |rest: &str, level: usize| -> String {
        let rest = match rest.split_once('.') {
            Some((n, rest)) if n.chars().all(|c| c.is_ascii_digit()) => {
                let rest = rest
                    .replace("conv1.conv.weight", "conv1.kernel")
                    .replace("conv2.conv.weight", "conv2.kernel")
                    .replace("conv1.norm.", "norm1.bn.")
                    .replace("conv2.norm.", "norm2.bn.")
                    .replace("shortcut.conv.weight", "downsample.0.kernel")
                    .replace("shortcut.norm.", "downsample.1.bn.");
                format!("{n}.{rest}")
            }
            _ => panic!("{rest}"),
        };
        format!("block{level}.{rest}")
    };
    let rename = |name: &str| -> String {
        if let Some(rest) = name.strip_prefix("stem.0.") {
            return rest.replace("conv.weight", "conv0p1s1.kernel").replace("norm.", "bn0.bn.");
        }
        if let Some(rest) = name.strip_prefix("head.conv.") {
            return format!("final.{}", rest.replace("weight", "kernel"));
        }
        let (side, rest) = name.split_once('.').unwrap();
        let (level, rest) = rest.split_once('.').unwrap();
        let level: usize = level.parse().unwrap();
        let (n, conv, norm, block) = match side {
            "encoder" => (level + 1, format!("conv{}p{}s2", level + 1, 1 << level), "bn", level + 1),
            _ => (level + 4, format!("convtr{}p{}s2", level + 4, 16 >> level), "bntr", level + 5),
        };
        for step in ["down", "up"] {
            if rest == format!("{step}.conv.weight") {
                return format!("{conv}.kernel");
            }
            if let Some(part) = rest.strip_prefix(&format!("{step}.norm.")) {
                return format!("{norm}{n}.bn.{part}");
            }
        }
        stage(rest.strip_prefix("blocks.").unwrap(), block)
    };
    torch_norms(values).into_iter().map(|(name, value)| (rename(&name), value)).collect()
}

/// Bytes of a PyTorch file (zip) that holds `{outer: {name: tensor}}`, or the tensors alone.
pub fn pth(values: &Values, outer: Option<&str>) -> Vec<u8> {
    let mut pickle = vec![0x80, 2];
    let text = |pickle: &mut Vec<u8>, text: &str| {
        pickle.push(b'X');
        pickle.extend((text.len() as u32).to_le_bytes());
        pickle.extend(text.as_bytes());
    };
    let number = |pickle: &mut Vec<u8>, n: usize| {
        pickle.push(b'J');
        pickle.extend((n as i32).to_le_bytes());
    };
    if let Some(outer) = outer {
        pickle.extend(b"}(");
        text(&mut pickle, "epoch");
        number(&mut pickle, 80);
        text(&mut pickle, outer);
    }
    pickle.extend(b"ccollections\nOrderedDict\n)R(");
    let mut entries = vec![("archive/version".to_owned(), b"3\n".to_vec())];
    for (key, (name, (shape, values))) in values.iter().enumerate() {
        text(&mut pickle, name);
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(b"ctorch\nFloatStorage\n");
        text(&mut pickle, &key.to_string());
        text(&mut pickle, "cpu");
        number(&mut pickle, values.len());
        pickle.extend(b"tQ");
        number(&mut pickle, 0);
        pickle.push(b'(');
        shape.iter().for_each(|&d| number(&mut pickle, d));
        pickle.extend(b"t(");
        (0..shape.len()).for_each(|i| number(&mut pickle, shape[i + 1..].iter().product()));
        pickle.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
        entries.push((format!("archive/data/{key}"), values.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }
    pickle.push(b'u');
    if outer.is_some() {
        pickle.push(b'u');
    }
    pickle.push(b'.');
    entries.insert(0, ("archive/data.pkl".into(), pickle));
    zip(&entries)
}

fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256u32)
        .map(|n| (0..8).fold(n, |c, _| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 }))
        .collect();
    !bytes.iter().fold(!0u32, |crc, b| table[((crc ^ u32::from(*b)) & 255) as usize] ^ (crc >> 8))
}

/// A zip archive of stored entries.
fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let start = out.len() as u32;
        let mut head = Vec::new();
        // Version, flags, method, time, date.
        [20u16, 0, 0, 0, 0x21].iter().for_each(|v| head.extend(v.to_le_bytes()));
        head.extend(crc32(bytes).to_le_bytes());
        [bytes.len() as u32; 2].iter().for_each(|v| head.extend(v.to_le_bytes()));
        [name.len() as u16, 0].iter().for_each(|v| head.extend(v.to_le_bytes()));
        out.extend(b"PK\x03\x04");
        out.extend(&head);
        out.extend(name.as_bytes());
        out.extend(bytes);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&head);
        directory.extend([0; 10]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    [entries.len() as u16; 2].iter().for_each(|v| out.extend(v.to_le_bytes()));
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}
