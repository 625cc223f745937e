//! Why coordinates are refused, and the limits behind that.

/// Most points of a polygon, all rings together.
pub const POINTS_MAX: usize = 10_000;
/// Points of a ring, the closing one included.
pub(super) const RING_POINTS_MIN: usize = 4;
/// Degrees beyond which a coordinate is not a slip any more: ten turns.
pub(super) const DEGREES_MAX: f64 = 3600.0;

/// Why coordinates were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a finite number, or absurd.
    #[error("a coordinate is not a number or is more than {DEGREES_MAX} degrees")]
    Coordinate,
    /// Not of the form.
    #[error("it is neither a ring of [longitude, latitude] nor a list of rings")]
    Shape,
    /// A ring with too few different points.
    #[error("a ring needs {RING_POINTS_MIN} points, including the closing one, and three different ones")]
    Ring,
    /// There are more points than a zone may have.
    #[error("a polygon has at most {POINTS_MAX} points")]
    TooManyPoints,
    /// A ring whose points lie on one line.
    #[error("a ring encloses nothing")]
    Area,
    /// A ring crosses itself, as a bow-tie does.
    #[error("a ring crosses or touches itself")]
    Crossing,
    /// A hole that is none.
    #[error("a hole is not inside the outer ring, or meets another one")]
    Hole,
    /// An edge that can be read in two ways.
    #[error(
        "an edge spans more than half of the world: write longitudes beyond 180 across the antimeridian, or points between"
    )]
    Edge,
    /// A ring around the world that overlaps itself.
    #[error("a ring is wider than the world")]
    Width,
    /// Too much work.
    #[error("too many edges are side by side")]
    TooComplex,
    /// The cut failed: rings touch on the line.
    #[error("it cannot be cut at the antimeridian: publish it as two")]
    Antimeridian,
}
