//! Cuts a zone at the antimeridian (RFC 7946, 3.1.9), so that no part of it crosses. Pure.
//!
//! Rings come simple and wound: the inside is on the left of every edge. A ring that crosses the line falls
//! into chains on each side of it; a chain's end is joined along the line to the next chain's start, which
//! lies where the inside is. So holes that cross become part of the outline, and a zone that crosses several
//! times falls into as many parts.

use super::{
    fault::Fault,
    rings::{HALF, Point, Ring, TURN},
};
use std::cmp::Ordering;

/// One outline and its holes.
pub type Part = Vec<Ring>;

/// A run of points on one side, from the line to the line.
struct Chain {
    points: Vec<Point>,
    is_taken: bool,
}

/// The parts west and east of the line, each within [-180, 180].
///
/// # Errors
/// [`Fault::Antimeridian`] when the outline cannot be followed.
pub fn at_antimeridian(rings: &[Ring]) -> Result<Vec<Part>, Fault> {
    let mut parts = side(rings, true)?;
    for part in side(rings, false)? {
        parts.push(part.into_iter().map(|ring| ring.shifted(-TURN)).collect());
    }
    Ok(parts)
}

fn side(rings: &[Ring], is_west: bool) -> Result<Vec<Part>, Fault> {
    let mut chains = Vec::new();
    let (mut outlines, mut holes) = (Vec::new(), Vec::new());
    for (n, ring) in rings.iter().enumerate() {
        match split(ring, is_west) {
            Some(found) => chains.extend(found),
            None if ring.0.iter().all(|p| is_here(*p, is_west)) => {
                if n == 0 {
                    outlines.push(ring.clone())
                } else {
                    holes.push(ring.clone())
                }
            }
            None => {}
        }
    }
    outlines.extend(join(chains, is_west)?.into_iter().filter(|ring| ring.area() != 0));
    let mut parts: Vec<Part> = outlines.into_iter().map(|outline| vec![outline]).collect();
    for hole in holes {
        let is_in = |part: &&mut Part| {
            let places = hole.0.iter().map(|p| part[0].place_of(*p));
            places.into_iter().find(|place| *place != Ordering::Equal) == Some(Ordering::Greater)
        };
        parts.iter_mut().find(is_in).ok_or(Fault::Antimeridian)?.push(hole);
    }
    Ok(parts)
}

/// A point on the line is west of it.
fn is_here(p: Point, is_west: bool) -> bool {
    (p.x <= HALF) == is_west
}

/// Where an edge meets the line.
fn meeting(a: Point, b: Point) -> Point {
    // From west to east, so that both sides find the same.
    let (a, b) = if a.x < b.x { (a, b) } else { (b, a) };
    let (dx, dy) = (i128::from(b.x - a.x), i128::from(b.y - a.y));
    let along = i128::from(HALF - a.x) * dy;
    // To the nearest unit.
    let y = (2 * along + dx).div_euclid(2 * dx);
    Point { x: HALF, y: a.y + i64::try_from(y).unwrap_or_default() }
}

/// The chains of a ring on one side; `None` when it does not cross the line.
fn split(ring: &Ring, is_west: bool) -> Option<Vec<Chain>> {
    let edges: Vec<_> = ring.edges().collect();
    let enters = |(a, b): &(Point, Point)| !is_here(*a, is_west) && is_here(*b, is_west);
    let first = edges.iter().position(enters)?;
    let mut chains: Vec<Chain> = Vec::new();
    for (a, b) in edges[first..].iter().chain(&edges[..first]).copied() {
        match (is_here(a, is_west), is_here(b, is_west)) {
            (false, true) => chains.push(Chain { points: vec![meeting(a, b), b], is_taken: false }),
            (true, true) => chains.last_mut()?.points.push(b),
            (true, false) => chains.last_mut()?.points.push(meeting(a, b)),
            (false, false) => {}
        }
    }
    chains.iter_mut().for_each(|chain| chain.points.dedup());
    Some(chains)
}

/// Joins chains along the line into rings.
fn join(mut chains: Vec<Chain>, is_west: bool) -> Result<Vec<Ring>, Fault> {
    let mut rings = Vec::new();
    while let Some(first) = chains.iter().position(|chain| !chain.is_taken) {
        let mut points: Vec<Point> = Vec::new();
        let mut at = first;
        loop {
            let chain = &mut chains[at];
            if chain.is_taken {
                return Err(Fault::Antimeridian);
            }
            chain.is_taken = true;
            points.extend(&chain.points);
            let end = chain.points.last().ok_or(Fault::Antimeridian)?.y;
            at = next(&chains, end, is_west).ok_or(Fault::Antimeridian)?;
            if at == first {
                break;
            }
        }
        points.dedup();
        while points.len() > 1 && points.first() == points.last() {
            points.pop();
        }
        rings.push(Ring(points));
    }
    Ok(rings)
}

/// The chain that starts nearest to where one ended, where the inside is: north of it in the west, whose
/// inside is left of somebody who goes north, and south of it in the east.
fn next(chains: &[Chain], end: i64, is_west: bool) -> Option<usize> {
    let starts = chains.iter().enumerate().filter_map(|(n, chain)| Some((chain.points.first()?.y, n)));
    if is_west {
        starts.filter(|(y, _)| *y >= end).min().map(|(_, n)| n)
    } else {
        starts.filter(|(y, _)| *y <= end).max_by_key(|(y, n)| (*y, std::cmp::Reverse(*n))).map(|(_, n)| n)
    }
}
