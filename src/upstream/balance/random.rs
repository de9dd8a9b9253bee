//! By chance, each endpoint as often as its weight says.

use crate::upstream::balance::draw::Draw;
use crate::upstream::balance::{Choice, Choose, Start};

/// Draws by weight, and nothing else.
#[derive(Debug)]
pub(super) struct Random {
    draw: Draw,
}

impl Random {
    pub(super) fn new(start: &Start<'_>, _before: Option<&Self>) -> Self {
        Self {
            draw: Draw::new(start.candidates),
        }
    }
}

impl Choose for Random {
    fn pick(&mut self, choice: &Choice<'_>) -> Option<u32> {
        self.draw.one(choice.avoid, choice.random)
    }
}
