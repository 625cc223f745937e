//! What of the picture a client looks at. Pure.

use crate::{
    feature::{Key, Kind, Severity},
    geometry::Bounds,
};
use agentforge_access::Scopes;

/// Most sites of one filter.
const SITES_MAX: usize = 64;
/// Degrees that a longitude may have: a map that shows the world more than once.
const LONGITUDE_MAX: f64 = 900.0;

/// A client's filter. Parts that are not given take everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    bbox: Option<Bounds>,
    severities: Option<Vec<Severity>>,
    sites: Option<Vec<String>>,
    kinds: Option<Vec<Kind>>,
    /// What its client may see at all; not the client's to change.
    within: Scopes,
}

/// Which part of a filter is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct FilterFault {
    /// The name of the query parameter or field.
    pub name: &'static str,
    /// What it must be.
    pub problem: &'static str,
}

impl Filter {
    /// Reads the parameters it knows, each as a comma-separated list; others are not looked at.
    ///
    /// # Errors
    /// [`FilterFault`].
    pub fn parse<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, FilterFault> {
        let mut filter = Self::default();
        for (name, value) in parameters {
            match name {
                "bbox" => filter.bbox = Some(bbox(value)?),
                "severity" => {
                    filter.severities =
                        Some(list("severity", value, Severity::parse, "takes low, medium, high, critical")?);
                }
                "kind" => filter.kinds = Some(list("kind", value, Kind::parse, "takes marker, zone")?),
                "site" => {
                    let sites: Vec<String> = value.split(',').map(str::to_owned).collect();
                    if sites.len() > SITES_MAX || sites.iter().any(String::is_empty) {
                        return Err(FilterFault { name: "site", problem: "takes 1 to 64 names" });
                    }
                    filter.sites = Some(sites);
                }
                _ => {}
            }
        }
        Ok(filter)
    }

    /// The same, for a client that sees the sites of these scopes only.
    pub fn within(self, within: Scopes) -> Self {
        Self { within, ..self }
    }

    /// What its client may see.
    pub fn scopes(&self) -> &Scopes {
        &self.within
    }

    /// Whether it takes everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it looks at this marker or zone at all.
    pub fn names(&self, key: &Key) -> bool {
        self.within.has_site(&key.site)
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&key.kind))
            && self.sites.as_ref().is_none_or(|sites| sites.iter().any(|site| **site == *key.site))
    }

    /// Whether it takes this state of it.
    pub fn takes(&self, key: &Key, bounds: Bounds, severity: Severity) -> bool {
        self.names(key)
            && self.severities.as_ref().is_none_or(|severities| severities.contains(&severity))
            && self.bbox.as_ref().is_none_or(|bbox| bbox.overlaps(&bounds))
    }
}

fn list<T>(
    name: &'static str,
    value: &str,
    parse: impl Fn(&str) -> Option<T>,
    problem: &'static str,
) -> Result<Vec<T>, FilterFault> {
    value.split(',').map(parse).collect::<Option<_>>().ok_or(FilterFault { name, problem })
}

fn bbox(value: &str) -> Result<Bounds, FilterFault> {
    let fault = FilterFault { name: "bbox", problem: "takes west,south,east,north in degrees" };
    let numbers: Vec<f64> = value.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| fault.clone())?;
    let [west, south, east, north] = numbers[..] else { return Err(fault) };
    if !(-90.0 <= south && south <= north && north <= 90.0) {
        return Err(fault);
    }
    let (west, east) = longitudes(west, east).ok_or(fault)?;
    Ok(Bounds { west, south, east, north })
}

/// Within [-180, 180]. A map that was dragged around the world sends larger values, always west before east.
fn longitudes(west: f64, east: f64) -> Option<(f64, f64)> {
    if west.abs() <= 180.0 && east.abs() <= 180.0 {
        return Some((west, east));
    }
    if !(west.abs() <= LONGITUDE_MAX && east.abs() <= LONGITUDE_MAX && west <= east) {
        return None;
    }
    if east - west >= 360.0 {
        return Some((-180.0, 180.0));
    }
    let wrapped = |degrees: f64| (degrees + 180.0).rem_euclid(360.0) - 180.0;
    Some((wrapped(west), wrapped(east)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_lists_and_all_must_fit() {
        let filter =
            Filter::parse([("site", "a,b"), ("severity", "high,critical"), ("kind", "marker"), ("other", "x")])
                .unwrap();
        let key = |kind, site: &str| Key { kind, site: site.into(), id: "i".into() };
        let here = Bounds { west: 1.0, south: 1.0, east: 1.0, north: 1.0 };
        assert!(filter.takes(&key(Kind::Marker, "a"), here, Severity::High));
        assert!(!filter.takes(&key(Kind::Marker, "a"), here, Severity::Low));
        assert!(!filter.takes(&key(Kind::Marker, "c"), here, Severity::High));
        assert!(!filter.takes(&key(Kind::Zone, "b"), here, Severity::Critical));
        assert!(Filter::default().takes(&key(Kind::Zone, "c"), here, Severity::Low));
        // Scopes bind in addition to what the client asks for, and without it.
        let scopes = Scopes::parse(["site:a"]).unwrap();
        for asked in [Filter::default(), Filter::parse([("site", "a,b")]).unwrap()] {
            let filter = asked.within(scopes.clone());
            assert!(!filter.is_empty() && filter.scopes() == &scopes);
            assert!(filter.names(&key(Kind::Marker, "a")) && !filter.names(&key(Kind::Marker, "b")));
        }
    }

    #[test]
    fn wrong_parts_are_named() {
        for (name, value) in [
            ("bbox", "1,2,3"),
            ("bbox", "1,2,3,x"),
            ("bbox", "0,5,1,4"),
            ("bbox", "nan,0,1,1"),
            ("bbox", "1,0,-181,1"),
            ("bbox", "-901,0,1,1"),
            ("bbox", "inf,0,inf,1"),
            ("severity", "urgent"),
            ("severity", ""),
            ("kind", "markers"),
            ("site", "a,,b"),
        ] {
            assert_eq!(Filter::parse([(name, value)]).unwrap_err().name, name, "{value}");
        }
        for (given, west, east) in [
            ("170,-10,-170,10", 170.0, -170.0),
            ("170,-10,190,10", 170.0, -170.0),
            ("-190,-10,-170,10", 170.0, -170.0),
            ("-181,-10,1,10", 179.0, 1.0),
            ("-200,-10,200,10", -180.0, 180.0),
            ("-180,-10,180,10", -180.0, 180.0),
            ("370,-10,380,10", 10.0, 20.0),
        ] {
            let filter = Filter::parse([("bbox", given)]).unwrap();
            assert_eq!(filter.bbox, Some(Bounds { west, south: -10.0, east, north: 10.0 }), "{given}");
        }
    }
}
