//! Of two random endpoints the one with fewer requests in flight for its weight.
//!
//! Two choices are nearly as good as the best of all (Mitzenmacher, 2001), cost the same with three
//! endpoints and with thousands, and keep many gateways from sending their next request to the same
//! endpoint.

use std::time::Instant;

use crate::upstream::balance::draw::Draw;
use crate::upstream::balance::in_flight::InFlight;
use crate::upstream::balance::{Choice, Choose, Outcome, Start};

/// Draws, and what is in flight.
#[derive(Debug)]
pub(super) struct LeastRequest {
    draw: Draw,
    flights: InFlight,
}

impl LeastRequest {
    pub(super) fn new(start: &Start<'_>, before: Option<&Self>) -> Self {
        Self {
            draw: Draw::new(start.candidates),
            flights: InFlight::new(start, before.map(|before| &before.flights)),
        }
    }
}

impl Choose for LeastRequest {
    fn pick(&mut self, choice: &Choice<'_>) -> Option<u32> {
        let (one, two) = self.draw.two(choice.avoid, choice.random)?;
        // Between equals the first draw wins, so that weights hold where there is little to do.
        let busier = self.flights.is_busier(one, two);
        let number = if busier { two } else { one };
        self.flights.start(number);
        Some(number)
    }

    fn begin(&mut self, number: u32) {
        self.flights.start(number);
    }

    fn settle(&mut self, number: u32, _: Outcome, _: Instant) {
        self.flights.end(number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::upstream::balance::Balance;
    use crate::upstream::balance::testing::{MS, simulate};

    #[test]
    fn an_endpoint_that_holds_its_requests_longer_gets_fewer() {
        let latencies = [10 * MS, MS, MS];
        let pace = Duration::from_micros(100);
        let counts = simulate(&Balance::LeastRequest, &[1, 1, 1], &latencies, pace, 20_000);
        assert!(counts[0] < 2_500, "{counts:?}");
    }

    #[test]
    fn weights_hold_when_idle_and_under_load() {
        for pace in [Duration::from_micros(50), 10 * MS] {
            let counts = simulate(&Balance::LeastRequest, &[1, 3], &[2 * MS; 2], pace, 40_000);
            assert!((8_500..11_500).contains(&counts[0]), "{pace:?}: {counts:?}");
        }
    }
}
