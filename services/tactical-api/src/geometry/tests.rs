//! Points and rings as they come and as they leave.

use super::*;
use proptest::prelude::*;
use std::cmp::Ordering;

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

/// The parts, each with its rings, as pairs of numbers.
fn parts(rings: &[&[[f64; 2]]]) -> Result<Vec<Vec<Vec<[f64; 2]>>>, Fault> {
    let rings: Vec<Vec<[f64; 2]>> = rings.iter().map(|ring| ring.to_vec()).collect();
    let plain = |rings: &Vec<Vec<Position>>| -> Vec<Vec<[f64; 2]>> {
        rings.iter().map(|ring| ring.iter().map(|p| [p.lon, p.lat]).collect()).collect()
    };
    Ok(match Geometry::polygon(&rings)? {
        Geometry::Polygon(rings) => vec![plain(&rings)],
        Geometry::MultiPolygon(parts, _) => parts.iter().map(plain).collect(),
        Geometry::Point(_) => unreachable!(),
    })
}

fn outer(points: &[[f64; 2]]) -> Result<Vec<[f64; 2]>, Fault> {
    let mut parts = parts(&[points])?;
    assert_eq!((parts.len(), parts[0].len()), (1, 1));
    Ok(parts.remove(0).remove(0))
}

const SQUARE: [[f64; 2]; 4] = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
const CLOSED: [[f64; 2]; 5] = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]];

#[test]
fn rings_are_closed_and_wound_right_handed() {
    assert_eq!(outer(&SQUARE).unwrap(), CLOSED);
    assert_eq!(outer(&CLOSED).unwrap(), CLOSED);
    let clockwise: Vec<_> = CLOSED.iter().rev().copied().collect();
    assert_eq!(outer(&clockwise).unwrap(), CLOSED);
    let inner = [[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8]];
    let made = parts(&[&SQUARE, &inner]).unwrap();
    assert_eq!(made[0][1], [[0.2, 0.2], [0.2, 0.8], [0.8, 0.8], [0.8, 0.2], [0.2, 0.2]]);
    // A centimetre far from the origin has a winding, too.
    let (e, s) = (1e-7, 179.0);
    let tiny = outer(&[[s, 60.0], [s, 60.0 + e], [s + e, 60.0]]).unwrap();
    assert_eq!(tiny, [[s, 60.0], [s + e, 60.0], [s, 60.0 + e], [s, 60.0]]);
}

#[test]
fn rings_that_enclose_nothing_are_refused() {
    for points in [&[][..], &[[0.0, 0.0]], &[[0.0, 0.0], [1.0, 1.0]], &[[1.0, 1.0]; 9]] {
        assert_eq!(outer(points), Err(Fault::Ring));
    }
    assert_eq!(outer(&[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), Err(Fault::Area));
    assert_eq!(outer(&[[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [1.0, 1.0]]), Err(Fault::Area));
    assert_eq!(parts(&[]), Err(Fault::Ring));
    let circle = |n: usize| {
        let angle = |i: usize| i as f64 * std::f64::consts::TAU / n as f64;
        (0..n).map(|i| [angle(i).cos(), angle(i).sin()]).collect::<Vec<_>>()
    };
    assert!(outer(&circle(POINTS_MAX - 1)).is_ok());
    assert_eq!(outer(&circle(POINTS_MAX)), Err(Fault::TooManyPoints));
    assert_eq!(outer(&circle(POINTS_MAX + 1)), Err(Fault::TooManyPoints));
}

#[test]
fn rings_that_cross_themselves_and_holes_that_are_none_are_refused() {
    for (points, fault) in [
        // A bow-tie, one that touches itself, a spike, one that goes back on its own way.
        (&[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]][..], Fault::Crossing),
        (&[[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [2.0, 2.0], [0.0, 2.0], [1.0, 1.0]], Fault::Crossing),
        (&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 1.0], [0.0, 1.0]], Fault::Crossing),
        (&[[0.0, 0.0], [4.0, 0.0], [4.0, 1.0], [1.0, 0.0], [0.0, 1.0]], Fault::Crossing),
    ] {
        assert_eq!(outer(points), Err(fault), "{points:?}");
    }
    let moved = |by: f64, size: f64| SQUARE.map(|[x, y]| [x * size + by, y * size + by]);
    for (holes, is_fine) in [
        (vec![moved(0.2, 0.2)], true),
        (vec![moved(0.2, 0.2), moved(0.6, 0.2)], true),
        // It touches the outline at a corner.
        (vec![[[0.0, 0.0], [0.5, 0.2], [0.5, 0.5], [0.2, 0.5]]], true),
        (vec![moved(0.0, 1.0)], false),
        (vec![moved(2.0, 0.2)], false),
        (vec![moved(0.9, 0.2)], false),
        (vec![moved(-1.0, 3.0)], false),
        (vec![moved(0.2, 0.2), moved(0.3, 0.2)], false),
        (vec![moved(0.2, 0.6), moved(0.4, 0.1)], false),
    ] {
        let rings: Vec<&[[f64; 2]]> = std::iter::once(&SQUARE[..]).chain(holes.iter().map(|h| &h[..])).collect();
        assert_eq!(parts(&rings).err(), (!is_fine).then_some(Fault::Hole), "{holes:?}");
    }
    // Work is bounded: all edges of this one lie side by side.
    let comb: Vec<[f64; 2]> =
        (0..9_000).map(|i| [f64::from(i % 2), f64::from(i) / 1000.0]).chain([[2.0, 9.0], [2.0, 0.0]]).collect();
    assert_eq!(outer(&comb), Err(Fault::TooComplex));
}

#[test]
fn a_zone_keeps_its_shape_at_the_antimeridian() {
    let zone = outer(&[[170.0, 0.0], [180.0, 0.0], [180.0, 9.0], [170.0, 9.0]]).unwrap();
    assert!(zone.iter().all(|[lon, _]| *lon >= 170.0), "{zone:?}");
    let turned = outer(&[[530.0, 0.0], [535.0, 0.0], [535.0, 9.0]]).unwrap();
    assert_eq!(turned[0], [170.0, 0.0]);
    let world = [[-180.0, -90.0], [180.0, -90.0], [180.0, 90.0], [-180.0, 90.0]];
    assert_eq!(outer(&world).unwrap()[..4], world);
}

#[test]
fn a_zone_across_the_antimeridian_is_cut_in_two() {
    let (west, east) = (
        [[180.0, 10.0], [170.0, 10.0], [170.0, -10.0], [180.0, -10.0], [180.0, 10.0]],
        [[-180.0, -10.0], [-170.0, -10.0], [-170.0, 10.0], [-180.0, 10.0], [-180.0, -10.0]],
    );
    for from in [-360.0, 0.0, 360.0] {
        let ring = [[170.0, -10.0], [190.0, -10.0], [190.0, 10.0], [170.0, 10.0]].map(|[x, y]| [x + from, y]);
        assert_eq!(parts(&[&ring]).unwrap(), [[west.to_vec()], [east.to_vec()]]);
        let clockwise: Vec<_> = ring.iter().rev().copied().collect();
        assert_eq!(parts(&[&clockwise]).unwrap().len(), 2);
    }
    let rings = vec![vec![[170.0, -10.0], [190.0, -10.0], [190.0, 10.0], [170.0, 10.0]]];
    let geometry = Geometry::polygon(&rings).unwrap();
    let bounds = geometry.bounds();
    assert_eq!((bounds.west, bounds.south, bounds.east, bounds.north), (170.0, -10.0, -170.0, 10.0));
    let mut text = String::new();
    geometry.write(&mut text);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((value["type"].as_str(), value["coordinates"].as_array().unwrap().len()), (Some("MultiPolygon"), 2));
    // What can be read in two ways is neither.
    for vague in [
        &[[170.0, -10.0], [-170.0, -10.0], [-170.0, 10.0], [170.0, 10.0]][..],
        &[[-170.0, -10.0], [170.0, -10.0], [170.0, 10.0], [-170.0, 10.0]],
        &[[0.0, 0.0], [190.0, 0.0], [190.0, 10.0], [0.0, 10.0]],
    ] {
        assert_eq!(parts(&[vague]), Err(Fault::Edge), "{vague:?}");
    }
    let spiral =
        [[0.0, 0.0], [180.0, 0.0], [360.0, 0.0], [400.0, 0.0], [400.0, 1.0], [360.0, 1.0], [180.0, 1.0], [0.0, 1.0]];
    assert_eq!(parts(&[&spiral]), Err(Fault::Width));
}

#[test]
fn holes_and_arms_are_cut_with_the_zone() {
    let frame = [[170.0, -10.0], [190.0, -10.0], [190.0, 10.0], [170.0, 10.0]];
    let ring = |west: f64, east: f64| [[west, -5.0], [east, -5.0], [east, 5.0], [west, 5.0]];
    // One hole on each side, and one across, also where it is written in another turn.
    let made = parts(&[&frame, &ring(172.0, 175.0), &ring(-175.0, -172.0)]).unwrap();
    assert_eq!(made.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    let made = parts(&[&frame, &ring(175.0, 185.0)]).unwrap();
    assert_eq!(made.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    assert!(made.iter().all(|part| part[0].len() == 9), "{made:?}");
    // A comb whose two teeth reach across: one back in the west, two teeth in the east.
    let comb = [
        [170.0, 0.0],
        [190.0, 0.0],
        [190.0, 2.0],
        [175.0, 2.0],
        [175.0, 4.0],
        [190.0, 4.0],
        [190.0, 6.0],
        [170.0, 6.0],
    ];
    let made = parts(&[&comb]).unwrap();
    assert_eq!(made.len(), 3, "{made:?}");
    // One that only touches the line from the east, with an edge and with a corner.
    for ring in
        [&[[180.0, 0.0], [190.0, 0.0], [190.0, 5.0], [180.0, 5.0]][..], &[[180.0, 2.0], [190.0, 0.0], [190.0, 5.0]]]
    {
        let made = parts(&[ring]).unwrap();
        assert!(made.len() == 1 && made[0][0].iter().all(|[lon, _]| *lon <= -170.0), "{made:?}");
    }
}

/// Twice the area of closed rings, in square degrees.
fn area(parts: &[Vec<Vec<[f64; 2]>>]) -> f64 {
    let of = |ring: &Vec<[f64; 2]>| -> f64 { ring.windows(2).map(|w| w[0][0] * w[1][1] - w[1][0] * w[0][1]).sum() };
    parts.iter().flatten().map(of).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_cut_keeps_every_place_and_adds_none(
        center in -200.0..200.0_f64,
        radii in prop::collection::vec(0.5..20.0_f64, 3..40),
        places in prop::collection::vec((-25.0..25.0_f64, -25.0..25.0_f64), 20),
    ) {
        let n = radii.len() as f64;
        let star: Vec<[f64; 2]> = radii.iter().enumerate().map(|(i, r)| {
            let angle = i as f64 * std::f64::consts::TAU / n;
            [center + r * angle.cos(), r * angle.sin()]
        }).collect();
        let whole = Ring(star.iter().map(|p| Point::of(Position { lon: p[0], lat: p[1] })).collect());
        prop_assume!(rings::check(std::slice::from_ref(&whole)).is_ok());
        let made = parts(&[&star]).unwrap();
        let expected = whole.area().unsigned_abs() as f64 / 1e14;
        prop_assert!((area(&made) - expected).abs() < 1e-4, "{} {expected}", area(&made));
        let cut: Vec<Ring> = made.iter().map(|part| {
            prop_assert_eq!(part.len(), 1);
            prop_assert!(part[0].iter().all(|[lon, _]| (-180.0..=180.0).contains(lon)));
            Ok(Ring(part[0][1..].iter().map(|p| Point::of(Position { lon: p[0], lat: p[1] })).collect()))
        }).collect::<Result<_, TestCaseError>>()?;
        for (dx, dy) in places {
            let place = Point::of(Position { lon: center + dx, lat: dy });
            let turns = [-TURN, 0, TURN].map(|by| Point { x: place.x + by, ..place });
            let was_in = whole.place_of(place) == Ordering::Greater;
            let is_in = turns.iter().any(|p| cut.iter().any(|ring| ring.place_of(*p) == Ordering::Greater));
            prop_assert_eq!(was_in, is_in, "{:?}", place);
        }
    }
}

#[test]
fn boxes_overlap_across_the_antimeridian() {
    let b = |west, east| Bounds { west, south: 0.0, east, north: 1.0 };
    assert!(b(0.0, 2.0).overlaps(&b(1.0, 3.0)));
    assert!(!b(0.0, 2.0).overlaps(&b(3.0, 4.0)));
    assert!(b(170.0, -170.0).overlaps(&b(-175.0, -174.0)));
    assert!(b(170.0, -170.0).overlaps(&b(175.0, -175.0)));
    assert!(!b(170.0, -170.0).overlaps(&b(0.0, 1.0)));
    assert!(!b(0.0, 2.0).overlaps(&Bounds { south: 2.0, north: 3.0, ..b(0.0, 2.0) }));
    // A marker at 180 is one at -180.
    assert!(b(170.0, 180.0).overlaps(&b(-180.0, -180.0)));
    assert!(b(-180.0, -170.0).overlaps(&b(180.0, 180.0)));
    assert!(!b(170.0, 179.0).overlaps(&b(-180.0, -180.0)));
}
