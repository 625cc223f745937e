//! A ring of exact whole numbers: seven decimals of a degree are units, so that every question about it has
//! one answer. Pure.

use super::fault::Fault;
use std::cmp::Ordering;

/// Units of a degree: seven decimals are a centimetre.
pub const DEGREE: i64 = 10_000_000;
/// A turn of the Earth.
pub const TURN: i64 = 360 * DEGREE;
/// Half of it: the antimeridian.
pub const HALF: i64 = 180 * DEGREE;
/// Comparisons of edges that a zone may cost; shapes of the world need a fraction.
const COMPARISONS_MAX: usize = 4_000_000;
/// Cells of the grid along one axis.
const CELLS_MAX: usize = 128;

/// A place: longitude and latitude in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// Longitude, -180 to 180.
    pub lon: f64,
    /// Latitude, -90 to 90.
    pub lat: f64,
}

/// A place in units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The longitude in units, so that sums are exact.
    pub x: i64,
    /// The latitude in units.
    pub y: i64,
}

impl Point {
    /// From degrees that were checked.
    pub fn of(p: Position) -> Self {
        let units = |degrees: f64| (degrees * DEGREE as f64).round() as i64;
        Self { x: units(p.lon), y: units(p.lat) }
    }

    /// The same place in degrees.
    pub fn position(self) -> Position {
        let degrees = |units: i64| units as f64 / DEGREE as f64;
        Position { lon: degrees(self.x), lat: degrees(self.y) }
    }
}

/// Points without the closing one, of which no two that follow each other are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring(pub Vec<Point>);

/// Twice the area of a triangle: positive when its corners turn left.
fn turn(a: Point, b: Point, c: Point) -> i128 {
    let (x1, y1) = (i128::from(b.x - a.x), i128::from(b.y - a.y));
    let (x2, y2) = (i128::from(c.x - a.x), i128::from(c.y - a.y));
    x1 * y2 - x2 * y1
}

/// Whether a point that lies on the line of an edge lies on the edge.
fn is_between((a, b): (Point, Point), p: Point) -> bool {
    (a.x.min(b.x)..=a.x.max(b.x)).contains(&p.x) && (a.y.min(b.y)..=a.y.max(b.y)).contains(&p.y)
}

/// What two edges have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Common {
    Nothing,
    /// One point, at the end of one of them.
    End,
    /// They cross, or lie on each other.
    More,
}

fn common((a, b): (Point, Point), (c, d): (Point, Point)) -> Common {
    let (c_side, d_side) = (turn(a, b, c).signum(), turn(a, b, d).signum());
    let (a_side, b_side) = (turn(c, d, a).signum(), turn(c, d, b).signum());
    if c_side == 0 && d_side == 0 {
        let shared: Vec<Point> = [(a, (c, d)), (b, (c, d)), (c, (a, b)), (d, (a, b))]
            .into_iter()
            .filter(|(p, edge)| is_between(*edge, *p))
            .map(|(p, _)| p)
            .collect();
        return match shared.first() {
            None => Common::Nothing,
            Some(first) if shared.iter().all(|p| p == first) => Common::End,
            Some(_) => Common::More,
        };
    }
    match (c_side * d_side, a_side * b_side) {
        (1, _) | (_, 1) => Common::Nothing,
        (-1, -1) => Common::More,
        _ => Common::End,
    }
}

impl Ring {
    /// The edges, the closing one included.
    pub fn edges(&self) -> impl Iterator<Item = (Point, Point)> + '_ {
        self.0.iter().copied().zip(self.0.iter().copied().cycle().skip(1))
    }

    /// Twice the signed area: positive when counter-clockwise. Relative to a point of its own, so that small
    /// rings far from the origin have theirs.
    pub fn area(&self) -> i128 {
        let Some(origin) = self.0.first().copied() else { return 0 };
        self.edges().map(|(a, b)| turn(origin, a, b)).sum()
    }

    /// Whether all points lie on one line.
    pub fn is_flat(&self) -> bool {
        let [a, b, rest @ ..] = &self.0[..] else { return true };
        rest.iter().all(|c| turn(*a, *b, *c) == 0)
    }

    /// Least and greatest longitude.
    pub fn span(&self) -> (i64, i64) {
        self.0.iter().fold((i64::MAX, i64::MIN), |(west, east), p| (west.min(p.x), east.max(p.x)))
    }

    /// Moves it by whole turns.
    pub fn shifted(mut self, by: i64) -> Self {
        self.0.iter_mut().for_each(|p| p.x += by);
        self
    }

    /// Winds it counter-clockwise, or clockwise.
    pub fn wind(&mut self, is_left: bool) {
        if (self.area() < 0) == is_left {
            self.0.reverse();
            // It begins where it began.
            self.0.rotate_right(1);
        }
    }

    /// Where a point lies: inside, on an edge, outside.
    pub fn place_of(&self, p: Point) -> Ordering {
        let mut is_inside = false;
        for (a, b) in self.edges() {
            let side = turn(a, b, p);
            if side == 0 && is_between((a, b), p) {
                return Ordering::Equal;
            }
            if (a.y > p.y) != (b.y > p.y) && (side > 0) == (b.y > a.y) {
                is_inside = !is_inside;
            }
        }
        if is_inside { Ordering::Greater } else { Ordering::Less }
    }
}

/// Whether rings are simple and do not cross: the first is the outer one, the others lie in it and apart.
///
/// # Errors
/// [`Fault::Crossing`], [`Fault::Hole`], [`Fault::TooComplex`].
pub fn check(rings: &[Ring]) -> Result<(), Fault> {
    edges_apart(rings)?;
    let Some((outer, holes)) = rings.split_first() else { return Ok(()) };
    // For rings that do not cross, one point that is on none of their edges decides for all.
    let inside = |of: &Ring, ring: &Ring| {
        let mut places = ring.0.iter().map(|p| of.place_of(*p)).filter(|place| *place != Ordering::Equal);
        places.next().is_some_and(|place| place == Ordering::Greater && places.all(|p| p == Ordering::Greater))
    };
    for (n, hole) in holes.iter().enumerate() {
        let others = holes.iter().enumerate().filter(|(other, _)| *other != n);
        if !inside(outer, hole) || others.into_iter().any(|(_, other)| inside(other, hole)) {
            return Err(Fault::Hole);
        }
    }
    Ok(())
}

/// An edge with its ring and its place there.
struct Edge {
    ends: (Point, Point),
    ring: usize,
    at: usize,
}

fn edges_apart(rings: &[Ring]) -> Result<(), Fault> {
    let mut edges: Vec<Edge> = Vec::new();
    for (ring, points) in rings.iter().enumerate() {
        edges.extend(points.edges().enumerate().map(|(at, ends)| Edge { ends, ring, at }));
    }
    let cells = cells(&edges, rings)?;
    let mut comparisons = 0;
    for cell in cells {
        comparisons += cell.len() * cell.len() / 2;
        if comparisons > COMPARISONS_MAX {
            return Err(Fault::TooComplex);
        }
        for (n, one) in cell.iter().enumerate() {
            for other in &cell[n + 1..] {
                let (one, other) = (&edges[*one], &edges[*other]);
                if one.is_near(other) {
                    apart(one, other, rings)?;
                }
            }
        }
    }
    Ok(())
}

/// A grid over all rings: in each cell the edges that may pass through it. Edges that meet share a cell.
fn cells(edges: &[Edge], rings: &[Ring]) -> Result<Vec<Vec<usize>>, Fault> {
    let count = edges.len().isqrt().clamp(1, CELLS_MAX);
    let points = || rings.iter().flat_map(|ring| &ring.0);
    let axis = |of: fn(&Point) -> i64| {
        let least = points().map(of).min().unwrap_or_default();
        let extent = points().map(of).max().unwrap_or_default() - least + 1;
        move |at: i64| usize::try_from((at - least) * count as i64 / extent).unwrap_or_default()
    };
    let (column, row) = (axis(|p| p.x), axis(|p| p.y));
    let mut cells = vec![Vec::new(); count * count];
    let mut entries = 0;
    for (n, edge) in edges.iter().enumerate() {
        let (low, high) = edge.corners();
        for y in row(low.y)..=row(high.y) {
            for x in column(low.x)..=column(high.x) {
                entries += 1;
                if entries > COMPARISONS_MAX {
                    return Err(Fault::TooComplex);
                }
                cells[y * count + x].push(n);
            }
        }
    }
    Ok(cells)
}

impl Edge {
    /// The box around it.
    fn corners(&self) -> (Point, Point) {
        let (a, b) = self.ends;
        (Point { x: a.x.min(b.x), y: a.y.min(b.y) }, Point { x: a.x.max(b.x), y: a.y.max(b.y) })
    }

    /// Whether the boxes share a point.
    fn is_near(&self, other: &Self) -> bool {
        let ((low, high), (from, to)) = (self.corners(), other.corners());
        low.x <= to.x && from.x <= high.x && low.y <= to.y && from.y <= high.y
    }
}

fn apart(one: &Edge, other: &Edge, rings: &[Ring]) -> Result<(), Fault> {
    let found = common(one.ends, other.ends);
    if one.ring != other.ring {
        // A hole may touch.
        return if found == Common::More { Err(Fault::Hole) } else { Ok(()) };
    }
    let count = rings[one.ring].0.len();
    let is_next = (one.at + 1) % count == other.at || (other.at + 1) % count == one.at;
    match found {
        Common::Nothing => Ok(()),
        // Neighbours share the point between them, and no more.
        Common::End if is_next => Ok(()),
        Common::End | Common::More => Err(Fault::Crossing),
    }
}
