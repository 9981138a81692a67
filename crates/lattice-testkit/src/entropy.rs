//! Entropy coding straight from its definition: bits as a list of booleans, wide integers, linear searches.

/// Cumulative frequencies of one row, 65,536 included; `None` where a probability that counts is not finite.
pub fn cdf(prob: &[f32]) -> Option<Vec<u32>> {
    let a = prob.len() as i64;
    let (mut run, mut out) = (0f32, vec![0]);
    for j in 1..a {
        let p = prob[j as usize - 1];
        if p.is_nan() || p.is_infinite() {
            return None;
        }
        run += p.clamp(0.0, 1.0);
        let product = f64::from(run * (65_536 - a) as f32);
        // Half away from zero; the product is not negative.
        let rounded = if product - product.floor() >= 0.5 { product.floor() + 1.0 } else { product.floor() };
        let v = rounded as i64 + j;
        out.push(v.max(j).min(65_536 - a + j) as u32);
    }
    out.push(65_536);
    Some(out)
}

fn head(mark: &str, rows: usize, alphabet: usize) -> Vec<u8> {
    let mut bytes = mark.as_bytes().to_vec();
    for n in [rows, alphabet] {
        for k in 0..4 {
            bytes.push((n >> (8 * k)) as u8);
        }
    }
    bytes
}

/// The range coder's stream of `symbols` under `rows` of cumulative frequencies of `alphabet` symbols.
pub fn range_stream(rows: &[Vec<u32>], alphabet: usize, symbols: &[i32]) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    let (mut low, mut high, mut pending) = (0i128, 0xffff_ffffi128, 0);
    let emit = |bits: &mut Vec<bool>, bit: bool, pending: &mut usize| {
        bits.push(bit);
        bits.extend(vec![!bit; *pending]);
        *pending = 0;
    };
    for (row, &s) in rows.iter().zip(symbols) {
        let (lo, hi) = (i128::from(row[s as usize]), i128::from(row[s as usize + 1]));
        let range = high - low + 1;
        high = low + range * hi / 65_536 - 1;
        low += range * lo / 65_536;
        loop {
            if high < 1 << 31 {
                emit(&mut bits, false, &mut pending);
            } else if low >= 1 << 31 {
                emit(&mut bits, true, &mut pending);
                low -= 1 << 31;
                high -= 1 << 31;
            } else if low >= 1 << 30 && high < 3 << 30 {
                pending += 1;
                low -= 1 << 30;
                high -= 1 << 30;
            } else {
                break;
            }
            low *= 2;
            high = high * 2 + 1;
        }
    }
    pending += 1;
    emit(&mut bits, low >= 1 << 30, &mut pending);
    let mut bytes = head("MLXGERNG01", rows.len(), alphabet);
    for group in bits.chunks(8) {
        bytes.push((0..8).map(|k| u8::from(group.get(k) == Some(&true)) << (7 - k)).sum());
    }
    bytes
}

/// The symbols that the range decoder reads from the payload behind a header of 18 bytes, damaged or not.
pub fn range_symbols(rows: &[Vec<u32>], stream: &[u8]) -> Vec<i32> {
    let bits: Vec<i128> =
        stream[18..].iter().flat_map(|b| (0..8).map(move |k| i128::from(b >> (7 - k) & 1))).collect();
    let mut at = 0;
    let mut next = || {
        at += 1;
        bits.get(at - 1).copied().unwrap_or(0)
    };
    let mut code = 0;
    for _ in 0..32 {
        code = code * 2 + next();
    }
    let (mut low, mut high) = (0i128, 0xffff_ffffi128);
    let mut symbols = Vec::new();
    for row in rows {
        let range = high - low + 1;
        let target = ((code - low + 1) * 65_536 - 1) / range;
        let s = (0..row.len() - 1)
            .find(|&s| i128::from(row[s]) <= target && target < i128::from(row[s + 1]))
            .expect("one holds it");
        symbols.push(s as i32);
        high = low + range * i128::from(row[s + 1]) / 65_536 - 1;
        low += range * i128::from(row[s]) / 65_536;
        loop {
            let less = if high < 1 << 31 {
                0
            } else if low >= 1 << 31 {
                1 << 31
            } else if low >= 1 << 30 && high < 3 << 30 {
                1 << 30
            } else {
                break;
            };
            low = (low - less) * 2;
            high = (high - less) * 2 + 1;
            code = (code - less) * 2 + next();
        }
    }
    symbols
}

/// The rANS coder's stream.
pub fn rans_stream(rows: &[Vec<u32>], alphabet: usize, symbols: &[i32]) -> Vec<u8> {
    let mut state = 1u64 << 23;
    let mut pushed = Vec::new();
    for (row, &s) in rows.iter().zip(symbols).rev() {
        let lo = u64::from(row[s as usize]);
        let f = u64::from(row[s as usize + 1]) - lo;
        while state >= 32_768 * f {
            pushed.push((state % 256) as u8);
            state /= 256;
        }
        state = (state / f) * 65_536 + state % f + lo;
    }
    let mut bytes = head("MLXGERNS01", rows.len(), alphabet);
    for k in 0..4 {
        bytes.push((state >> (8 * k)) as u8);
    }
    pushed.reverse();
    bytes.extend(pushed);
    bytes
}

/// The symbols that the rANS decoder reads behind a header of 18 bytes; `None` for a payload that is too short or too long or that does
/// not end in the first state.
pub fn rans_symbols(rows: &[Vec<u32>], stream: &[u8]) -> Option<Vec<i32>> {
    let mut state = (0..4).map(|k| u64::from(stream[18 + k]) << (8 * k)).sum::<u64>();
    let mut at = 22;
    let mut symbols = Vec::new();
    for row in rows {
        let slot = state % 65_536;
        let s = (0..row.len() - 1)
            .find(|&s| u64::from(row[s]) <= slot && slot < u64::from(row[s + 1]))
            .expect("one holds it");
        symbols.push(s as i32);
        state = u64::from(row[s + 1] - row[s]) * (state / 65_536) + slot - u64::from(row[s]);
        while state < 1 << 23 {
            state = state * 256 + u64::from(*stream.get(at)?);
            at += 1;
        }
    }
    (at == stream.len() && state == 1 << 23).then_some(symbols)
}
