//! The demo feed of `dev`: a few vehicles that move around a city, and a zone. Ends with `dev`.
//!
//! Publishes through the API like any client. A feed that cannot publish tries again with the next step and reports
//! nothing: the picture is empty then, and everything else works.

use crate::{ready::Ready, roster::TACTICAL_API};
use agentforge_client::tactical::Endpoint;
use serde_json::json;
use std::{f64::consts::TAU, time::Duration};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

/// Between two steps of all vehicles.
const STEP: Duration = Duration::from_secs(1);
/// After this time without a new state a vehicle is gone: nothing of the demo stays behind.
const KEPT: Duration = Duration::from_secs(60);
/// Whose they are.
const SITE: &str = "berlin";

/// A vehicle on its round: name, severity, centre of its round, its size in degrees, seconds for one round.
const VEHICLES: [(&str, &str, [f64; 2], f64, f64); 4] = [
    ("Patrol 1", "low", [13.3777, 52.5163], 0.012, 90.0),
    ("Engine 12", "high", [13.4132, 52.5219], 0.018, 140.0),
    ("Medic 3", "critical", [13.3888, 52.4986], 0.022, 110.0),
    ("Drone 8", "medium", [13.3501, 52.5145], 0.009, 60.0),
];
/// The outline of the Tiergarten in Berlin, [longitude, latitude], closed.
const ZONE: [[f64; 2]; 6] = [
    [13.3326, 52.5122],
    [13.3560, 52.5094],
    [13.3766, 52.5103],
    [13.3767, 52.5163],
    [13.3540, 52.5197],
    [13.3352, 52.5180],
];

/// Starts it; `None` where there is no tactical API to reach.
pub fn start(ready: &Ready) -> Option<AbortOnDropHandle<()>> {
    let endpoint = Endpoint::new(ready.http(TACTICAL_API)?, None).ok()?;
    Some(AbortOnDropHandle::new(tokio::spawn(run(endpoint))))
}

async fn run(endpoint: Endpoint) {
    let mut steps = interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0_u32.. {
        steps.tick().await;
        let now = jiff::Timestamp::now();
        let expires_at = now.checked_add(KEPT).unwrap_or(now).to_string();
        if n % 30 == 0 {
            let zone = json!({"id": "tiergarten", "site": SITE, "title": "Event area: no drones above 100 m",
                "severity": "medium", "polygon": ZONE, "expires_at": expires_at});
            let _ = endpoint.send("POST", "/v1/zones", Some(&zone)).await;
        }
        for (name, severity, [lon, lat], size, round) in VEHICLES {
            let angle = TAU * f64::from(n) / round;
            let place = [lon + size * angle.cos(), lat + size * 0.6 * angle.sin()];
            let id = name.to_lowercase().replace(' ', "-");
            let body = json!({"id": id, "site": SITE, "title": name, "severity": severity,
                "description": "demo feed of agentforge dev", "coordinates": place, "expires_at": expires_at});
            let _ = endpoint.send("POST", "/v1/markers", Some(&body)).await;
        }
    }
}
