//! How many calls may be under way at a provider without keys: one at first, twice as many after each definite
//! response, half after any other. Each response in doubt costs an invoice an operator's time, so with a window of one
//! call only so many of them in a row are accepted. Pure: knows no provider, no breaker and no clock.

use std::num::NonZeroUsize;

/// The number of responses in doubt in a row, each to a call that was alone, after which nothing more is sent. Then an
/// operator must resolve one of their invoices or restart the service.
pub const DOUBTS_MAX: u32 = 5;

/// The effect of a call on the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The provider charged or refused.
    Definite,
    /// It is unknown whether the provider executed the call: its invoice needs an operator.
    Doubt,
    /// Anything else, such as no connection to the provider.
    Other,
}

/// The size of the window, and the calls under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    size: usize,
    size_max: usize,
    under_way: usize,
    doubts: u32,
}

impl Window {
    /// A window of one call that grows to at most this size.
    #[must_use]
    pub fn new(size_max: NonZeroUsize) -> Self {
        Self { size: 1, size_max: size_max.get(), under_way: 0, doubts: 0 }
    }

    /// The number of calls that may be under way now.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether so many calls in a row ended in doubt that an operator must act first.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.doubts >= DOUBTS_MAX
    }

    /// Takes a place; `Some(true)` when the call is alone, `None` when there is no place.
    pub fn enter(&mut self) -> Option<bool> {
        if self.is_exhausted() || self.under_way >= self.size {
            return None;
        }
        self.under_way += 1;
        Some(self.size == 1)
    }

    /// Ends a call. Without a following [`Self::read`] the call was not made.
    pub fn leave(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Applies the reading of a call. A call in doubt from a wide window only narrows the window: it was under way
    /// already, and does not predict the result of a call made alone.
    pub fn read(&mut self, was_alone: bool, reading: Reading) {
        match reading {
            Reading::Definite => {
                self.size = self.size.saturating_mul(2).min(self.size_max);
                self.doubts = 0;
            }
            Reading::Doubt | Reading::Other => self.size = (self.size / 2).max(1),
        }
        if was_alone && reading == Reading::Doubt {
            self.doubts = self.doubts.saturating_add(1);
        }
    }

    /// An operator has resolved an invoice: one more call may end in doubt.
    pub fn resolved(&mut self) {
        self.doubts = self.doubts.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(size_max: usize) -> Window {
        Window::new(NonZeroUsize::new(size_max).unwrap())
    }

    /// Makes one call; the window decides whether the call is alone.
    fn call(window: &mut Window, reading: Reading) {
        let was_alone = window.enter().expect("a place");
        window.leave();
        window.read(was_alone, reading);
    }

    #[test]
    fn it_begins_at_one_doubles_on_definite_responses_and_ends_at_its_limit() {
        let mut window = window(20);
        let mut sizes = vec![window.size()];
        for _ in 0..6 {
            call(&mut window, Reading::Definite);
            sizes.push(window.size());
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16, 20, 20]);
    }

    #[test]
    fn it_halves_on_anything_else_down_to_one() {
        for reading in [Reading::Doubt, Reading::Other] {
            let mut window = window(20);
            (0..6).for_each(|_| call(&mut window, Reading::Definite));
            let mut sizes = Vec::new();
            for _ in 0..6 {
                call(&mut window, reading);
                sizes.push(window.size());
            }
            assert_eq!(sizes, [10, 5, 2, 1, 1, 1], "{reading:?}");
        }
    }

    #[test]
    fn no_more_calls_are_under_way_than_it_is_wide_also_after_it_narrowed() {
        let mut window = window(8);
        assert_eq!((window.enter(), window.enter()), (Some(true), None));
        window.leave();
        (0..3).for_each(|_| call(&mut window, Reading::Definite));
        assert!((0..8).all(|_| window.enter() == Some(false)));
        assert_eq!(window.enter(), None);
        window.leave();
        window.read(false, Reading::Other);
        for _ in 0..3 {
            assert_eq!(window.enter(), None, "more are under way than it is wide: {window:?}");
            window.leave();
        }
        window.leave();
        assert_eq!(window.enter(), Some(false));
    }

    #[test]
    fn five_doubts_in_a_row_are_the_most_until_an_operator_resolves_one() {
        let mut window = window(8);
        (0..DOUBTS_MAX).for_each(|_| call(&mut window, Reading::Doubt));
        assert!(window.is_exhausted());
        assert_eq!(window.enter(), None);
        window.resolved();
        call(&mut window, Reading::Doubt);
        assert!(window.is_exhausted());
        window.resolved();
        call(&mut window, Reading::Definite);
        // The first of these calls has a window of two, and is not counted.
        (0..DOUBTS_MAX).for_each(|_| call(&mut window, Reading::Doubt));
        assert!(!window.is_exhausted(), "a definite response begins the count anew");
        call(&mut window, Reading::Doubt);
        assert!(window.is_exhausted());
    }

    #[test]
    fn a_provider_that_is_not_reached_exhausts_nothing() {
        let mut window = window(8);
        (0..100).for_each(|_| call(&mut window, Reading::Other));
        assert!(!window.is_exhausted());
    }

    #[test]
    fn what_was_under_way_when_trouble_began_narrows_it_and_is_not_counted() {
        let mut window = window(8);
        (0..3).for_each(|_| call(&mut window, Reading::Definite));
        let alone: Vec<bool> = (0..8).map(|_| window.enter().unwrap()).collect();
        for was_alone in alone {
            window.leave();
            window.read(was_alone, Reading::Doubt);
        }
        assert_eq!((window.size(), window.is_exhausted()), (1, false));
        (0..DOUBTS_MAX).for_each(|_| call(&mut window, Reading::Doubt));
        assert!(window.is_exhausted());
    }
}
