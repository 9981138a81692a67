//! Colours of points: ramps for numbers, a palette for classes.

/// A colour ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ramp {
    /// Blue, green, yellow, red: the most steps that the eye can part.
    #[default]
    Turbo,
    /// Violet, green, yellow: even in brightness, safe for colour-blind readers.
    Viridis,
}

impl Ramp {
    /// The colour at `t` of 0..=1, clamped.
    ///
    /// # Source
    /// Turbo: polynomial of A. Mikhailov, Google, 2019; viridis: polynomial fit of M. Zucker to matplotlib's table.
    pub fn at(self, t: f64) -> [u8; 3] {
        const TURBO: [[f64; 3]; 6] = [
            [0.13572138, 0.09140261, 0.10667330],
            [4.61539260, 2.19418839, 12.64194608],
            [-42.66032258, 4.84296658, -60.58204836],
            [132.13108234, -14.18503333, 110.36276771],
            [-152.94239396, 4.27729857, -89.90310912],
            [59.28637943, 2.82956604, 27.34824973],
        ];
        const VIRIDIS: [[f64; 3]; 7] = [
            [0.2777273, 0.0054073, 0.3340998],
            [0.1050930, 1.4046135, 1.3845902],
            [-0.3308618, 0.2148476, 0.0950952],
            [-4.6342305, -5.7991010, -19.3324410],
            [6.2282699, 14.1799334, 56.6905526],
            [4.7763850, -13.7451454, -65.3530326],
            [-5.4354559, 4.6458526, 26.3124352],
        ];
        let t = if t.is_nan() { 0.0 } else { t.clamp(0.0, 1.0) };
        let terms: &[[f64; 3]] = match self {
            Self::Turbo => &TURBO,
            Self::Viridis => &VIRIDIS,
        };
        // The darkest ends would sink into the background.
        let t = if self == Self::Turbo { 0.07 + 0.86 * t } else { 0.08 + 0.92 * t };
        std::array::from_fn(|c| {
            let v = terms.iter().rev().fold(0.0, |sum, term| sum * t + term[c]);
            (v.clamp(0.0, 1.0) * 255.0).round() as u8
        })
    }
}

/// Class id of points without a class.
const IGNORED: usize = 255;
const NO_CLASS: [u8; 3] = [72, 74, 80];

/// Colours of the classes 0, 1, 2, ...: far apart from each other and from the dark background.
const PALETTE: [[u8; 3]; 20] = [
    [134, 142, 158],
    [236, 180, 92],
    [66, 153, 246],
    [98, 190, 92],
    [250, 232, 92],
    [240, 82, 82],
    [190, 120, 240],
    [64, 214, 208],
    [250, 140, 190],
    [170, 110, 60],
    [160, 226, 150],
    [255, 130, 50],
    [110, 120, 230],
    [210, 206, 180],
    [180, 220, 40],
    [200, 60, 150],
    [40, 150, 130],
    [250, 190, 170],
    [130, 180, 220],
    [150, 150, 60],
];

/// The fixed colour of a class: the same in every picture. Ids past 19 repeat; 255 is grey: no class.
pub fn class_colour(class: usize) -> [u8; 3] {
    if class == IGNORED { NO_CLASS } else { PALETTE[class % PALETTE.len()] }
}

/// As [`class_colour`], for ids as files have them; negative ones are no class.
pub(super) fn colour_of_id(id: i64) -> [u8; 3] {
    usize::try_from(id).map_or(NO_CLASS, class_colour)
}

/// Values at the given fractions of the sorted finite values; of at most about 200,000, evenly picked.
pub(super) fn percentiles<const N: usize>(
    values: impl ExactSizeIterator<Item = f64>,
    fractions: [f64; N],
) -> Option<[f64; N]> {
    let step = (values.len() / 200_000).max(1);
    let mut sorted: Vec<f64> = values.step_by(step).filter(|v| v.is_finite()).collect();
    if sorted.is_empty() {
        return None;
    }
    sorted.sort_unstable_by(f64::total_cmp);
    Some(fractions.map(|f| sorted[((sorted.len() - 1) as f64 * f).round() as usize]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_begin_dark_and_end_where_they_should() {
        let [r, g, b] = Ramp::Viridis.at(1.0);
        assert!(r > 230 && g > 210 && b < 80, "{r} {g} {b}");
        let [r, g, b] = Ramp::Turbo.at(1.0);
        assert!(r > 150 && g < 70 && b < 60, "{r} {g} {b}");
        assert_eq!(Ramp::Turbo.at(f64::NAN), Ramp::Turbo.at(-3.0));
    }

    #[test]
    fn classes_have_colours_of_their_own() {
        let mut colours: Vec<_> = (0..20).map(class_colour).chain([class_colour(255)]).collect();
        colours.sort_unstable();
        colours.dedup();
        assert_eq!(colours.len(), 21);
        assert_eq!(class_colour(usize::MAX), class_colour(usize::MAX % 20));
        assert_eq!(colour_of_id(-1), class_colour(255));
    }

    #[test]
    fn percentiles_leave_out_what_is_not_finite() {
        let values = (0..=100).map(f64::from).chain([f64::NAN]).collect::<Vec<_>>();
        assert_eq!(percentiles(values.into_iter(), [0.01, 0.5]), Some([1.0, 50.0]));
        assert_eq!(percentiles([f64::NAN].into_iter(), [0.5]), None);
    }
}
