//! Where the points are seen from.

/// Points of a view: pixel, depth, and pixels a unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Distance from the eye, or for the top view from a plane above all points; greater is farther.
    pub(super) depth: f64,
    /// Pixels that one unit of length takes here.
    pub(super) scale: f64,
}

/// A camera over points whose third axis is up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Camera {
    /// Parallel, from above.
    Top { centre: [f64; 3], top: f64, scale: f64, middle: [f64; 2] },
    /// From `eye` along `forward`.
    Perspective {
        eye: [f64; 3],
        right: [f64; 3],
        up: [f64; 3],
        forward: [f64; 3],
        focal: f64,
        middle: [f64; 2],
    },
}

/// Part of a panel, along each axis, that the bulk of the points fills.
const FILL: f64 = 0.9;

/// Directions of sight that are tried, in radians from the y axis towards the x axis: never along a wall.
const AZIMUTHS: [f64; 4] = [0.35, 0.62, 0.95, 1.2];

pub(super) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn unit(a: [f64; 3]) -> [f64; 3] {
    let length = dot(a, a).sqrt();
    a.map(|v| v / length)
}

impl Camera {
    /// From above, with the box from `lo` to `hi` filling a panel.
    pub(super) fn top(lo: [f64; 3], hi: [f64; 3], panel: [f64; 2]) -> Self {
        let extent = |a: usize| (hi[a] - lo[a]).max(1e-12);
        let scale = (FILL * panel[0] / extent(0)).min(FILL * panel[1] / extent(1));
        let centre = std::array::from_fn(|a| 0.5 * (lo[a] + hi[a]));
        Self::Top { centre, top: hi[2] + extent(2), scale, middle: panel.map(|v| 0.5 * v) }
    }

    /// From the front, the left and above, at the distance from which the sample of the box's points fills a panel; of a
    /// few directions the one that lets the eye come nearest.
    pub(super) fn perspective(
        sample: &[[f64; 3]],
        lo: [f64; 3],
        hi: [f64; 3],
        panel: [f64; 2],
        elevation: f64,
    ) -> Self {
        let all = AZIMUTHS.map(|azimuth| Self::from_azimuth(sample, lo, hi, panel, elevation, azimuth));
        let nearest = all.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
        nearest.map_or_else(|| Self::top(lo, hi, panel), |(camera, _)| camera)
    }

    /// The camera of one direction, and its distance.
    fn from_azimuth(
        sample: &[[f64; 3]],
        lo: [f64; 3],
        hi: [f64; 3],
        panel: [f64; 2],
        elevation: f64,
        azimuth: f64,
    ) -> (Self, f64) {
        let centre: [f64; 3] = std::array::from_fn(|a| 0.5 * (lo[a] + hi[a]));
        let forward =
            unit([azimuth.sin() * elevation.cos(), azimuth.cos() * elevation.cos(), -elevation.sin()]);
        let right = unit(cross(forward, [0.0, 0.0, 1.0]));
        let up = cross(right, forward);
        let focal = 1.5 * panel[0].min(panel[1]);
        let radius =
            dot(std::array::from_fn(|a| hi[a] - centre[a]), std::array::from_fn(|a| hi[a] - centre[a]))
                .sqrt()
                .max(1e-9);
        let at = |distance: f64, shift: [f64; 2]| Self::Perspective {
            eye: std::array::from_fn(|a| centre[a] - forward[a] * distance),
            right,
            up,
            forward,
            focal,
            middle: [0.5 * panel[0] + shift[0], 0.5 * panel[1] + shift[1]],
        };
        // Bounds on the panel; nothing when a point is behind the eye.
        let bounds = |camera: &Self| {
            let mut b = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
            for p in sample {
                let seen = camera.see(*p)?;
                b = [b[0].min(seen.x), b[1].min(seen.y), b[2].max(seen.x), b[3].max(seen.y)];
            }
            Some(b)
        };
        let (mut near, mut far) = (0.05 * radius, 20.0 * radius);
        for _ in 0..30 {
            let distance = 0.5 * (near + far);
            let fits = bounds(&at(distance, [0.0; 2]))
                .is_some_and(|b| b[2] - b[0] <= FILL * panel[0] && b[3] - b[1] <= FILL * panel[1]);
            if fits { far = distance } else { near = distance }
        }
        let shift = bounds(&at(far, [0.0; 2]))
            .filter(|b| b[0].is_finite())
            .map_or([0.0; 2], |b| [0.5 * (panel[0] - b[0] - b[2]), 0.5 * (panel[1] - b[1] - b[3])]);
        (at(far, shift), far)
    }

    /// Direction towards a light over the eye's left shoulder.
    pub(super) fn light(&self) -> [f64; 3] {
        match *self {
            Self::Top { .. } => unit([-0.35, 0.35, 1.0]),
            Self::Perspective { right, up, forward, .. } => {
                unit(std::array::from_fn(|a| 0.6 * up[a] - 0.5 * right[a] - forward[a]))
            }
        }
    }

    /// Where a point is seen; `None` behind or too near the eye.
    pub(super) fn see(&self, p: [f64; 3]) -> Option<Seen> {
        match *self {
            Self::Top { centre, top, scale, middle } => Some(Seen {
                x: middle[0] + (p[0] - centre[0]) * scale,
                y: middle[1] - (p[1] - centre[1]) * scale,
                depth: top - p[2],
                scale,
            }),
            Self::Perspective { eye, right, up, forward, focal, middle } => {
                let d: [f64; 3] = std::array::from_fn(|a| p[a] - eye[a]);
                let depth = dot(d, forward);
                if depth.is_nan() || depth <= 1e-9 {
                    return None;
                }
                let scale = focal / depth;
                Some(Seen {
                    x: middle[0] + dot(d, right) * scale,
                    y: middle[1] - dot(d, up) * scale,
                    depth,
                    scale,
                })
            }
        }
    }
}
