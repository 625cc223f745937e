//! Points and polygons as RFC 7946 wants them: in range, closed, wound right-handed. Pure.
//!
//! What has no place on Earth however it is read (no number, ten turns and more) is refused.

use std::fmt::Write;

/// Most points of a polygon, all rings together.
pub const POINTS_MAX: usize = 10_000;
/// Points of a ring, the closing one included.
const RING_POINTS_MIN: usize = 4;
/// Degrees beyond which a coordinate is no slip any more: ten turns.
const DEGREES_MAX: f64 = 3600.0;

/// Why coordinates were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a finite number, or absurd.
    #[error("a coordinate is no number or is more than {DEGREES_MAX} degrees")]
    Coordinate,
    /// A ring with too few different points.
    #[error("a ring needs {RING_POINTS_MIN} points, the closing one included, and three different ones")]
    Ring,
    /// Too many.
    #[error("a polygon has at most {POINTS_MAX} points")]
    TooManyPoints,
}

/// A place: longitude and latitude in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// Longitude, -180 to 180.
    pub lon: f64,
    /// Latitude, -90 to 90.
    pub lat: f64,
}

/// Where something is.
#[derive(Clone, Debug, PartialEq)]
pub enum Geometry {
    /// One place.
    Point(Position),
    /// Rings: the outer one, then holes.
    Polygon(Vec<Vec<Position>>),
}

/// A box of degrees. `west` above `east` spans the antimeridian.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Least longitude.
    pub west: f64,
    /// Least latitude.
    pub south: f64,
    /// Greatest longitude.
    pub east: f64,
    /// Greatest latitude.
    pub north: f64,
}

impl Geometry {
    /// A point: latitude clipped, longitude wrapped into [-180, 180).
    ///
    /// # Errors
    /// [`Fault::Coordinate`].
    pub fn point(lon: f64, lat: f64) -> Result<Self, Fault> {
        let p = checked([lon, lat])?;
        Ok(Self::Point(Position { lon: wrap(p.lon), lat: p.lat }))
    }

    /// A polygon: rings closed, wound right-handed (the outer one counter-clockwise, holes clockwise).
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn polygon(rings: &[Vec<[f64; 2]>]) -> Result<Self, Fault> {
        if rings.is_empty() {
            return Err(Fault::Ring);
        }
        if rings.iter().map(Vec::len).sum::<usize>() > POINTS_MAX {
            return Err(Fault::TooManyPoints);
        }
        let rings = rings.iter().enumerate().map(|(n, points)| ring(points, n == 0));
        let rings: Vec<_> = rings.collect::<Result<_, _>>()?;
        // Closing a ring adds a point.
        if rings.iter().map(Vec::len).sum::<usize>() > POINTS_MAX {
            return Err(Fault::TooManyPoints);
        }
        Ok(Self::Polygon(rings))
    }

    /// The smallest box that holds it.
    pub fn bounds(&self) -> Bounds {
        let points: &[Position] = match self {
            Self::Point(p) => std::slice::from_ref(p),
            Self::Polygon(rings) => &rings[0],
        };
        let start = Bounds { west: 180.0, south: 90.0, east: -180.0, north: -90.0 };
        points.iter().fold(start, |b, p| Bounds {
            west: b.west.min(p.lon),
            south: b.south.min(p.lat),
            east: b.east.max(p.lon),
            north: b.north.max(p.lat),
        })
    }

    /// Writes the value of a Feature's `geometry`.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Point(p) => {
                out.push_str(r#"{"type":"Point","coordinates":"#);
                p.write(out);
            }
            Self::Polygon(rings) => {
                out.push_str(r#"{"type":"Polygon","coordinates":["#);
                for (n, ring) in rings.iter().enumerate() {
                    out.push_str(if n == 0 { "[" } else { ",[" });
                    for (n, p) in ring.iter().enumerate() {
                        if n > 0 {
                            out.push(',');
                        }
                        p.write(out);
                    }
                    out.push(']');
                }
                out.push(']');
            }
        }
        out.push('}');
    }
}

impl Position {
    fn write(self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(out, "[{},{}]", self.lon, self.lat);
    }
}

impl Bounds {
    /// Whether two boxes share a place.
    pub fn overlaps(&self, other: &Self) -> bool {
        let lat = self.south <= other.north && other.south <= self.north;
        let lon = |a: &Self, b: &Self| a.west <= b.east && b.west <= a.east;
        let split = |b: &Self| match b.west <= b.east {
            true => [Some(*b), None],
            false => [Some(Self { east: 180.0, ..*b }), Some(Self { west: -180.0, ..*b })],
        };
        let others = split(other);
        lat && split(self).iter().flatten().any(|a| others.iter().flatten().any(|b| lon(a, b)))
    }
}

/// Seven decimals are a centimetre.
fn rounded(degrees: f64) -> f64 {
    // Adding 0 turns -0 into 0.
    (degrees * 1e7).round() / 1e7 + 0.0
}

fn checked([lon, lat]: [f64; 2]) -> Result<Position, Fault> {
    let fine = |v: f64| v.is_finite() && v.abs() <= DEGREES_MAX;
    match fine(lon) && fine(lat) {
        true => Ok(Position { lon: rounded(lon), lat: rounded(lat.clamp(-90.0, 90.0)) }),
        false => Err(Fault::Coordinate),
    }
}

/// Into [-180, 180).
fn wrap(lon: f64) -> f64 {
    if (-180.0..180.0).contains(&lon) {
        return lon;
    }
    let wrapped = rounded((lon + 180.0).rem_euclid(360.0) - 180.0);
    if wrapped >= 180.0 { -180.0 } else { wrapped }
}

fn ring(points: &[[f64; 2]], is_outer: bool) -> Result<Vec<Position>, Fault> {
    let mut ring: Vec<_> = points.iter().map(|p| checked(*p)).collect::<Result<_, _>>()?;
    turn(&mut ring);
    let (Some(first), Some(last)) = (ring.first().copied(), ring.last().copied()) else { return Err(Fault::Ring) };
    if first != last {
        ring.push(first);
    }
    let mut different: Vec<Position> = Vec::with_capacity(3);
    for p in &ring {
        if different.len() < 3 && !different.contains(p) {
            different.push(*p);
        }
    }
    if ring.len() < RING_POINTS_MIN || different.len() < 3 {
        return Err(Fault::Ring);
    }
    if (area(&ring) < 0.0) == is_outer {
        ring.reverse();
    }
    Ok(ring)
}

/// Into range. A ring that fits after a whole number of turns keeps its shape, with 180 where it ends there;
/// only one that crosses the antimeridian is wrapped point by point, and should be cut by its publisher.
fn turn(ring: &mut [Position]) {
    let west = ring.iter().map(|p| p.lon).fold(f64::INFINITY, f64::min);
    if !west.is_finite() {
        return;
    }
    let shift = wrap(west) - west;
    let fits = ring.iter().all(|p| rounded(p.lon + shift) <= 180.0);
    for p in ring {
        p.lon = if fits { rounded(p.lon + shift) } else { wrap(p.lon) };
    }
}

/// Twice the signed area: positive when counter-clockwise.
fn area(ring: &[Position]) -> f64 {
    ring.windows(2).map(|w| w[0].lon * w[1].lat - w[1].lon * w[0].lat).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_come_into_range_or_are_refused() {
        for ((lon, lat), (x, y)) in [
            ((13.4, 52.5), (13.4, 52.5)),
            ((190.0, 91.0), (-170.0, 90.0)),
            ((180.0, -90.5), (-180.0, -90.0)),
            ((-180.0, 0.0), (-180.0, 0.0)),
            ((-540.0, 0.0), (-180.0, 0.0)),
            ((719.999_999_99, -0.0), (0.0, 0.0)),
            ((179.999_999_999, 0.0), (-180.0, 0.0)),
            ((3600.0, 0.0), (0.0, 0.0)),
        ] {
            assert_eq!(Geometry::point(lon, lat), Ok(Geometry::Point(Position { lon: x, lat: y })), "{lon} {lat}");
        }
        for (lon, lat) in [(f64::NAN, 0.0), (0.0, f64::INFINITY), (1e300, 0.0), (0.0, -3601.0)] {
            assert_eq!(Geometry::point(lon, lat), Err(Fault::Coordinate));
        }
    }

    fn outer(points: &[[f64; 2]]) -> Result<Vec<[f64; 2]>, Fault> {
        match Geometry::polygon(&[points.to_vec()])? {
            Geometry::Polygon(rings) => Ok(rings[0].iter().map(|p| [p.lon, p.lat]).collect()),
            Geometry::Point(_) => unreachable!(),
        }
    }

    #[test]
    fn rings_are_closed_and_wound_right_handed() {
        let square = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
        let closed = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]];
        assert_eq!(outer(&square).unwrap(), closed);
        assert_eq!(outer(&closed).unwrap(), closed);
        let clockwise: Vec<_> = closed.iter().rev().copied().collect();
        assert_eq!(outer(&clockwise).unwrap(), closed);
        let Geometry::Polygon(rings) = Geometry::polygon(&[square.to_vec(), square.to_vec()]).unwrap() else {
            panic!()
        };
        assert!(area(&rings[0]) > 0.0 && area(&rings[1]) < 0.0);
    }

    #[test]
    fn rings_that_enclose_nothing_are_refused() {
        for points in [&[][..], &[[0.0, 0.0]], &[[0.0, 0.0], [1.0, 1.0]], &[[1.0, 1.0]; 9]] {
            assert_eq!(outer(points), Err(Fault::Ring));
        }
        assert_eq!(outer(&[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), Err(Fault::Ring));
        assert_eq!(Geometry::polygon(&[]), Err(Fault::Ring));
        let circle = |n: usize| (0..n).map(|i| [(i as f64).cos(), (i as f64).sin()]).collect::<Vec<_>>();
        assert!(outer(&circle(POINTS_MAX - 1)).is_ok());
        assert_eq!(outer(&circle(POINTS_MAX)), Err(Fault::TooManyPoints));
        assert_eq!(outer(&circle(POINTS_MAX + 1)), Err(Fault::TooManyPoints));
    }

    #[test]
    fn a_zone_keeps_its_shape_at_the_antimeridian() {
        let zone = outer(&[[170.0, 0.0], [180.0, 0.0], [180.0, 9.0], [170.0, 9.0]]).unwrap();
        assert!(zone.iter().all(|[lon, _]| *lon >= 170.0), "{zone:?}");
        let turned = outer(&[[530.0, 0.0], [535.0, 0.0], [535.0, 9.0]]).unwrap();
        assert_eq!(turned[0], [170.0, 0.0]);
    }

    #[test]
    fn boxes_overlap_across_the_antimeridian() {
        let b = |west, east| Bounds { west, south: 0.0, east, north: 1.0 };
        assert!(b(0.0, 2.0).overlaps(&b(1.0, 3.0)));
        assert!(!b(0.0, 2.0).overlaps(&b(3.0, 4.0)));
        assert!(b(170.0, -170.0).overlaps(&b(-175.0, -174.0)));
        assert!(!b(170.0, -170.0).overlaps(&b(0.0, 1.0)));
        assert!(!b(0.0, 2.0).overlaps(&Bounds { south: 2.0, north: 3.0, ..b(0.0, 2.0) }));
    }
}
