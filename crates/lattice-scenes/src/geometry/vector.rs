//! Three-dimensional vectors and frames.

/// x, y, z.
pub type V3 = [f64; 3];

/// `a + b`.
pub fn add(a: V3, b: V3) -> V3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

/// `a - b`.
pub fn sub(a: V3, b: V3) -> V3 {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

/// Axis by axis product.
pub fn mul(a: V3, b: V3) -> V3 {
    [a[0] * b[0], a[1] * b[1], a[2] * b[2]]
}

/// `a * k`.
pub fn scale(a: V3, k: f64) -> V3 {
    [a[0] * k, a[1] * k, a[2] * k]
}

/// Inner product.
pub fn dot(a: V3, b: V3) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Vector product.
pub fn cross(a: V3, b: V3) -> V3 {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// Length.
pub fn norm(a: V3) -> f64 {
    dot(a, a).sqrt()
}

/// `a` with length 1; x for the zero vector.
pub fn unit(a: V3) -> V3 {
    let n = norm(a);
    if n > 0.0 { scale(a, 1.0 / n) } else { [1.0, 0.0, 0.0] }
}

/// A rotated and shifted coordinate system: world = origin + Σ local\[i\] · axes\[i\].
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Where the local origin lies.
    pub origin: V3,
    /// Orthonormal, right-handed.
    pub axes: [V3; 3],
}

impl Frame {
    /// Local x turned by `yaw` (radians) about z.
    pub fn yaw(origin: V3, yaw: f64) -> Self {
        let (s, c) = yaw.sin_cos();
        Self { origin, axes: [[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]] }
    }

    /// Local z along `direction`.
    pub fn along(origin: V3, direction: V3) -> Self {
        let z = unit(direction);
        let x = unit(if z[2].abs() > 0.999 { [1.0, 0.0, 0.0] } else { cross([0.0, 0.0, 1.0], z) });
        Self { origin, axes: [x, cross(z, x), z] }
    }

    /// This frame's local frame at `at`, turned by `yaw` about its z and then by `pitch` about its own y.
    pub fn child(&self, at: V3, yaw: f64, pitch: f64) -> Self {
        let (s, c) = yaw.sin_cos();
        let (sp, cp) = pitch.sin_cos();
        let [x, y, z] = self.axes;
        let forward = add(scale(x, c), scale(y, s));
        let left = add(scale(x, -s), scale(y, c));
        Self {
            origin: self.world(at),
            axes: [sub(scale(forward, cp), scale(z, sp)), left, add(scale(forward, sp), scale(z, cp))],
        }
    }

    /// A local point in the world.
    pub fn world(&self, p: V3) -> V3 {
        add(self.origin, self.turn(p))
    }

    /// A local direction in the world.
    pub fn turn(&self, d: V3) -> V3 {
        let [x, y, z] = self.axes;
        add(add(scale(x, d[0]), scale(y, d[1])), scale(z, d[2]))
    }

    /// A world point in this frame.
    pub fn local(&self, p: V3) -> V3 {
        self.local_direction(sub(p, self.origin))
    }

    /// A world direction in this frame.
    pub fn local_direction(&self, d: V3) -> V3 {
        [dot(d, self.axes[0]), dot(d, self.axes[1]), dot(d, self.axes[2])]
    }
}
