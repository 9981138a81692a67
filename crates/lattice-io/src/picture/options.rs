//! How a picture is drawn.

use super::colour::Ramp;

/// What a picture shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// From above on the left, in perspective on the right.
    #[default]
    Both,
    /// From above, parallel, with a scale bar.
    Top,
    /// From the front, the left and above.
    Perspective,
}

/// Which way is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Up {
    /// z, but y for mesh files, and -y where the points lie in a camera's view (all in front of it along z).
    #[default]
    Auto,
    /// z: lidar, maps, most rooms.
    Z,
    /// y: most object scans.
    Y,
    /// -y: camera frames (x right, y down, z forward).
    MinusY,
}

/// What the colours of the points mean.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ColourBy {
    /// Attribute `label` as classes, else the points' own colours, else the height.
    #[default]
    Auto,
    /// Position along the up axis.
    Height,
    /// An attribute, on a ramp from its 2nd to its 98th percentile.
    Attribute(String),
    /// An attribute of whole numbers as classes, with the names of classes 0, 1, 2, ... (255 is "no class").
    Classes {
        /// The attribute.
        attribute: String,
        /// Names of the classes from 0 on; classes past the end are numbered.
        names: Vec<String>,
    },
    /// The points' own colours: the attribute `rgb`.
    Rgb,
}

/// How to draw; the default suits most scans.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RenderOptions {
    /// From where.
    pub view: View,
    /// Width and height in pixels, of the whole picture.
    pub size: [usize; 2],
    /// What the colours mean.
    pub colour: ColourBy,
    /// The ramp for numbers.
    pub ramp: Ramp,
    /// Which way is up.
    pub up: Up,
    /// Width of a point in pixels in the middle of the scene; found from the density where not given.
    pub point_size: Option<f64>,
    /// A caption, such as the file's name.
    pub title: String,
    /// Unit of length for the scale bar, such as `m`; the bar has a bare number without.
    pub unit: String,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            view: View::Both,
            size: [1600, 840],
            colour: ColourBy::Auto,
            ramp: Ramp::Turbo,
            up: Up::Auto,
            point_size: None,
            title: String::new(),
            unit: String::new(),
        }
    }
}

impl RenderOptions {
    /// Sets the view.
    pub fn with_view(mut self, view: View) -> Self {
        self.view = view;
        self
    }

    /// Sets width and height in pixels.
    pub fn with_size(mut self, width: usize, height: usize) -> Self {
        self.size = [width, height];
        self
    }

    /// Sets what the colours mean.
    pub fn with_colour(mut self, colour: ColourBy) -> Self {
        self.colour = colour;
        self
    }

    /// Colours by the classes of an attribute, with the names of classes 0, 1, 2, ...
    pub fn by_class(
        self,
        attribute: impl Into<String>,
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        self.with_colour(ColourBy::Classes { attribute: attribute.into(), names })
    }

    /// Sets the ramp for numbers.
    pub fn with_ramp(mut self, ramp: Ramp) -> Self {
        self.ramp = ramp;
        self
    }

    /// Sets which way is up.
    pub fn with_up(mut self, up: Up) -> Self {
        self.up = up;
        self
    }

    /// Sets the width of a point in pixels.
    pub fn with_point_size(mut self, pixels: f64) -> Self {
        self.point_size = Some(pixels);
        self
    }

    /// Sets the caption.
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Sets the unit of length of the scale bar.
    pub fn with_unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = unit.into();
        self
    }
}
