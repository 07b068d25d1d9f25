//! Named points where a test kills the process as a power cut would. Exists only with debug assertions:
//! a release binary holds neither the calls nor the names. Must not know what the points mean.
//!
//! `TINJIS_CRASH=K5:3` kills this process by SIGKILL at the third hit of K5; `TINJIS_CRASH_HITS=FILE` gets the name of
//! each hit, one per line, so that a test can check that the point was reached. Hits already in the file count: if each
//! start hits a point once, the third start dies at it.

/// Marks a point to die at: `crash_point!("K5")`. Compiles to nothing without debug assertions.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {{
        #[cfg(debug_assertions)]
        $crate::crash::hit($name);
    }};
}

#[cfg(debug_assertions)]
pub use armed::{hit, is_planned};

#[cfg(debug_assertions)]
mod armed {
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Mutex, OnceLock, PoisonError};

    /// The environment's overrides, read once.
    struct Plan {
        point: Option<Point>,
        hits: Option<File>,
    }

    struct Point {
        name: String,
        nth: u64,
        seen: AtomicU64,
    }

    impl Point {
        /// Reads `name:nth`; panics at a malformed plan, which must not be ignored.
        fn parse(text: &str) -> Self {
            let (name, nth) = text.rsplit_once(':').unwrap_or((text, "1"));
            let nth =
                nth.parse().ok().filter(|nth| *nth > 0).expect("TINJIS_CRASH is name:nth, nth from 1 on");
            Self { name: name.to_owned(), nth, seen: AtomicU64::new(0) }
        }

        /// Continues the count of earlier processes.
        fn after(self, hits: &str) -> Self {
            let before = hits.lines().filter(|name| *name == self.name).count();
            Self { seen: AtomicU64::new(u64::try_from(before).unwrap_or(u64::MAX)), ..self }
        }

        /// True at exactly the nth hit of this point.
        fn is_due(&self, name: &str) -> bool {
            self.name == name && self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.nth
        }
    }

    static PLAN: OnceLock<Plan> = OnceLock::new();
    static IN_TURN: Mutex<()> = Mutex::new(());

    /// Counts a hit and dies when it is the planned one. Use [`crash_point!`](crate::crash_point).
    pub fn hit(name: &str) {
        let plan = PLAN.get_or_init(read_plan);
        // Held until the process dies: no other task's hit is written after the fatal one.
        let _in_turn = IN_TURN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut hits) = plan.hits.as_ref() {
            hits.write_all(format!("{name}\n").as_bytes()).expect("the file of crash hits can be written");
        }
        if plan.point.as_ref().is_some_and(|point| point.is_due(name)) {
            die();
        }
    }

    /// Whether the process is to die at this point: for a point that changes the steps before it.
    #[must_use]
    pub fn is_planned(name: &str) -> bool {
        PLAN.get_or_init(read_plan).point.as_ref().is_some_and(|point| point.name == name)
    }

    fn read_plan() -> Plan {
        let text = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let hits = text("TINJIS_CRASH_HITS");
        let before = hits.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        Plan {
            point: text("TINJIS_CRASH").map(|value| Point::parse(&value.to_string_lossy()).after(&before)),
            hits: hits.map(|path| {
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .expect("TINJIS_CRASH_HITS can be opened")
            }),
        }
    }

    fn die() -> ! {
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::KILL).expect("a process may kill itself");
        loop {
            std::thread::park();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_is_due_at_its_nth_hit_only() {
            let point = Point::parse("K5:3");
            let due: Vec<bool> = ["K5", "K4", "K5", "K5", "K5"].map(|name| point.is_due(name)).into();
            assert_eq!(due, [false, false, false, true, false]);
        }

        #[test]
        fn a_point_without_a_number_is_due_at_once() {
            assert!(Point::parse("K1").is_due("K1"));
        }

        #[test]
        fn hits_of_earlier_processes_count() {
            let point = Point::parse("K5:3").after("K5\nK4\n");
            assert_eq!(["K5", "K5", "K5"].map(|name| point.is_due(name)), [false, true, false]);
        }

        #[test]
        #[should_panic(expected = "nth from 1 on")]
        fn a_plan_that_cannot_be_read_stops_the_process() {
            Point::parse("K1:soon");
        }
    }
}
