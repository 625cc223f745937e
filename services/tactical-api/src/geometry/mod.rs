//! Points and polygons as RFC 7946 wants them: in range, closed, wound right-handed, cut at the antimeridian.
//!
//! Pure.
//!
//! What has no place on Earth however it is read (no number, ten turns and more) is refused, and so is what
//! encloses nothing, crosses itself, or can be read as a zone or as the rest of the world.

mod cut;
mod fault;
mod rings;

pub use fault::{Fault, POINTS_MAX};
pub use rings::Position;

use fault::{DEGREES_MAX, RING_POINTS_MIN};
use rings::{DEGREE, HALF, Point, Ring, TURN};
use std::fmt::Write;

/// Where something is.
#[derive(Clone, Debug, PartialEq)]
pub enum Geometry {
    /// One place: a marker.
    Point(Position),
    /// Rings: the outer one, then holes.
    Polygon(Vec<Vec<Position>>),
    /// The parts of a zone across the antimeridian, those that end there first.
    MultiPolygon(Vec<Vec<Vec<Position>>>, Bounds),
}

/// A box of degrees. `west` above `east` spans the antimeridian.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The western edge, a longitude.
    pub west: f64,
    /// The southern edge, a latitude.
    pub south: f64,
    /// The eastern edge, a longitude.
    pub east: f64,
    /// The northern edge, a latitude.
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

    /// A polygon: rings closed, wound right-handed (the outer one counter-clockwise, holes clockwise), and cut
    /// where it crosses the antimeridian.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn polygon(rings: &[Vec<[f64; 2]>]) -> Result<Self, Fault> {
        // Closing a ring adds a point.
        let is_open = |ring: &&Vec<[f64; 2]>| ring.first() != ring.last();
        let closing = rings.iter().filter(is_open).count();
        if rings.iter().map(Vec::len).sum::<usize>() + closing > POINTS_MAX {
            return Err(Fault::TooManyPoints);
        }
        let (outer, holes) = rings.split_first().ok_or(Fault::Ring)?;
        let mut outer = read(outer)?;
        outer.wind(true);
        let mut rings = vec![outer];
        for hole in holes {
            let mut hole = within(read(hole)?, &rings[0])?;
            hole.wind(false);
            rings.push(hole);
        }
        rings::check(&rings)?;
        let (west, east) = rings[0].span();
        if east <= HALF {
            return Ok(Self::Polygon(closed(&rings)));
        }
        let parts = cut::at_antimeridian(&rings)?;
        let (south, north) = rings[0].0.iter().fold((i64::MAX, i64::MIN), |(s, n), p| (s.min(p.y), n.max(p.y)));
        let corner = |x, y| Point { x, y }.position();
        let (low, high) = (corner(west, south), corner(east - TURN, north));
        let bounds = if high.lon < low.lon {
            Bounds { west: low.lon, south: low.lat, east: high.lon, north: high.lat }
        } else {
            Bounds { west: -180.0, south: low.lat, east: 180.0, north: high.lat }
        };
        match &parts[..] {
            [] => Err(Fault::Antimeridian),
            [one] => Ok(Self::Polygon(closed(one))),
            parts => Ok(Self::MultiPolygon(parts.iter().map(|part| closed(part)).collect(), bounds)),
        }
    }

    /// The smallest box that holds it.
    pub fn bounds(&self) -> Bounds {
        let points: &[Position] = match self {
            Self::Point(p) => std::slice::from_ref(p),
            Self::Polygon(rings) => &rings[0],
            Self::MultiPolygon(_, bounds) => return *bounds,
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
                out.push_str(r#"{"type":"Polygon","coordinates":"#);
                write_rings(rings, out);
            }
            Self::MultiPolygon(parts, _) => {
                out.push_str(r#"{"type":"MultiPolygon","coordinates":"#);
                list(parts, out, |part, out| write_rings(part, out));
            }
        }
        out.push('}');
    }
}

fn write_rings(rings: &[Vec<Position>], out: &mut String) {
    list(rings, out, |ring, out| list(ring, out, |p, out| p.write(out)));
}

fn list<T>(items: &[T], out: &mut String, write: impl Fn(&T, &mut String)) {
    for (n, item) in items.iter().enumerate() {
        out.push(if n == 0 { '[' } else { ',' });
        write(item, out);
    }
    out.push(']');
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
        // 180 and -180 are the same meridian.
        let meet = |a: &Self, b: &Self| a.west <= -180.0 && b.east >= 180.0;
        let lon = |a: &Self, b: &Self| a.west <= b.east && b.west <= a.east || meet(a, b) || meet(b, a);
        let split = |b: &Self| {
            if b.west <= b.east {
                [Some(*b), None]
            } else {
                [Some(Self { east: 180.0, ..*b }), Some(Self { west: -180.0, ..*b })]
            }
        };
        let others = split(other);
        lat && split(self).iter().flatten().any(|a| others.iter().flatten().any(|b| lon(a, b)))
    }
}

/// Seven decimals are a centimetre.
fn rounded(degrees: f64) -> f64 {
    let units = DEGREE as f64;
    // Adding 0 turns -0 into 0.
    (degrees * units).round() / units + 0.0
}

fn checked([lon, lat]: [f64; 2]) -> Result<Position, Fault> {
    let fine = |v: f64| v.is_finite() && v.abs() <= DEGREES_MAX;
    if fine(lon) && fine(lat) {
        Ok(Position { lon: rounded(lon), lat: rounded(lat.clamp(-90.0, 90.0)) })
    } else {
        Err(Fault::Coordinate)
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

/// A ring that is continuous: its edges go where they are drawn, also beyond 180, and it begins in range.
fn read(points: &[[f64; 2]]) -> Result<Ring, Fault> {
    let checked: Vec<Point> = points.iter().map(|p| checked(*p).map(Point::of)).collect::<Result<_, _>>()?;
    let mut points = checked;
    points.dedup();
    while points.len() > 1 && points.first() == points.last() {
        points.pop();
    }
    // The closing one is not among them.
    if points.len() < RING_POINTS_MIN - 1 {
        return Err(Fault::Ring);
    }
    let ring = Ring(points);
    // An edge around the whole world can be meant in only one way.
    let is_vague = |(a, b): (Point, Point)| (HALF + 1..TURN).contains(&(a.x - b.x).abs());
    if ring.edges().any(is_vague) {
        return Err(Fault::Edge);
    }
    let (west, east) = ring.span();
    if east - west > TURN {
        return Err(Fault::Width);
    }
    // A ring that is not flat and has no area crosses itself, which is reported below.
    if ring.is_flat() {
        return Err(Fault::Area);
    }
    let shift = (west + HALF).rem_euclid(TURN) - HALF - west;
    Ok(ring.shifted(shift))
}

/// A hole may be written in another turn of the Earth than the ring that it is in.
fn within(hole: Ring, outer: &Ring) -> Result<Ring, Fault> {
    let ((west, east), (from, to)) = (hole.span(), outer.span());
    let shift = [0, TURN, -TURN].into_iter().find(|shift| west + shift >= from && east + shift <= to);
    shift.map(|shift| hole.shifted(shift)).ok_or(Fault::Hole)
}

fn closed(rings: &[Ring]) -> Vec<Vec<Position>> {
    let close = |ring: &Ring| ring.0.iter().chain(ring.0.first()).map(|p| p.position()).collect();
    rings.iter().map(close).collect()
}

#[cfg(test)]
mod tests;
