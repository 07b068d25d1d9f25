//! The search: visits every state within bounds, nearest first, and checks it. Then it checks from every state what
//! happens on every path once faults have stopped. The first error is the nearest one, and its path the shortest. Knows
//! no protocol.

use billing::protocol::transition::AnswerClass;

use crate::check;
use crate::faults::Fault;
use crate::index::Index;
use crate::machine::{Machine, Nature, Next, Step};
use crate::protocol::Wrong;
use crate::world::World;

/// A search gives up beyond this many states; all cases stay well below.
const STATES_MAX: usize = 40_000_000;

/// How often each kind occurred among the steps taken, from any state.
#[derive(Clone, Debug)]
pub(crate) struct SearchCounts {
    pub(crate) faults: Vec<u64>,
    pub(crate) classes: Vec<u64>,
}

impl SearchCounts {
    /// All counts at zero.
    pub(crate) fn new() -> Self {
        Self { faults: vec![0; Fault::ALL.len()], classes: vec![0; AnswerClass::ALL.len()] }
    }

    /// Adds the counts of another search.
    pub(crate) fn add(&mut self, other: &Self) {
        self.faults.iter_mut().zip(&other.faults).for_each(|(sum, more)| *sum += more);
        self.classes.iter_mut().zip(&other.classes).for_each(|(sum, more)| *sum += more);
    }

    fn count(&mut self, next: &Next) {
        if let Nature::Fault(fault) = next.nature {
            self.faults[fault as usize] += 1;
        }
        if let Step::Hear(_, word) = next.step {
            let class = AnswerClass::ALL.iter().position(|class| *class == word.class);
            self.classes[class.expect("every class is in the list")] += 1;
        }
    }
}

/// An error, and the path to it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) wrong: Wrong,
    pub(crate) path: Vec<(World, Next)>,
    /// Number of steps at the end of the path that repeat for ever.
    pub(crate) loop_len: usize,
}

/// The result of a search.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) states: usize,
    pub(crate) depth: usize,
    pub(crate) counts: SearchCounts,
    pub(crate) found: Option<Found>,
}

struct Search<'a> {
    machine: &'a Machine,
    index: Index,
    /// For each state, the state from which it was first reached; a root is its own parent.
    parents: Vec<u32>,
    counts: SearchCounts,
}

/// Searches for the error `wanted`, or for any error.
pub(crate) fn search(machine: &Machine, wanted: Option<Wrong>) -> Report {
    let mut search =
        Search { machine, index: Index::new(), parents: Vec::new(), counts: SearchCounts::new() };
    let (depth, mut found) = search.forward(wanted);
    let at_rest =
        wanted.is_none_or(|wanted| matches!(wanted, Wrong::Stuck | Wrong::Lost | Wrong::AskedNeedlessly));
    if found.is_none() && at_rest {
        found = search.rest(wanted);
    }
    Report { states: search.index.items.len(), depth, counts: search.counts, found }
}

impl Search<'_> {
    /// Visits every state, nearest first; stops at the first error.
    fn forward(&mut self, wanted: Option<Wrong>) -> (usize, Option<Found>) {
        for root in self.machine.roots() {
            let (number, _) = self.index.insert(root.pack());
            self.parents.push(number);
        }
        let mut next = Vec::new();
        let (mut at, mut depth, mut level_end) = (0, 0, self.index.items.len());
        while at < self.index.items.len() {
            if at == level_end {
                (depth, level_end) = (depth + 1, self.index.items.len());
            }
            let world = World::unpack(&self.index.items[at]);
            self.machine.steps(&world, &mut next);
            for step in &next {
                self.counts.count(step);
                let (number, is_new) = self.index.insert(step.world.pack());
                if !is_new {
                    continue;
                }
                self.parents.push(u32::try_from(at).expect("a search has fewer than 2^32 states"));
                let wrong = check::safety(self.machine, &step.world);
                if let Some(wrong) = wrong.into_iter().find(|wrong| wanted.is_none_or(|one| one == *wrong)) {
                    let path = self.path(number);
                    return (depth + 1, Some(Found { wrong, path, loop_len: 0 }));
                }
            }
            at += 1;
            assert!(at < STATES_MAX, "the bounds of this case are too wide");
        }
        (depth, None)
    }

    /// Follows only regular steps from every state, nearest first: no path may repeat for ever, and everything must be
    /// at rest at the end of each.
    fn rest(&self, wanted: Option<Wrong>) -> Option<Found> {
        let mut marks = vec![Mark::New; self.index.items.len()];
        for start in 0..self.index.items.len() {
            if marks[start] == Mark::New
                && let Some((wrong, trail, loop_len)) = self.descend(start, &mut marks, wanted)
            {
                let mut path = self.path(number(trail[0]));
                path.extend(trail.windows(2).map(|pair| self.link(pair[0], pair[1])));
                return Some(Found { wrong, path, loop_len });
            }
        }
        None
    }

    /// Searches depth first from one state; returns the trail to an error.
    fn descend(
        &self,
        start: usize,
        marks: &mut [Mark],
        wanted: Option<Wrong>,
    ) -> Option<(Wrong, Vec<usize>, usize)> {
        let mut trail = vec![(start, self.onward(start))];
        marks[start] = Mark::OnTrail;
        if let Some(wrong) = self.wrong_at_rest(start, &trail[0].1, wanted) {
            return Some((wrong, vec![start], 0));
        }
        while let Some((at, onward)) = trail.last_mut() {
            let Some(next) = onward.pop() else {
                marks[*at] = Mark::Done;
                trail.pop();
                continue;
            };
            match marks[next] {
                Mark::Done => {}
                Mark::OnTrail => {
                    if wanted.is_some_and(|wanted| wanted != Wrong::Stuck) {
                        continue;
                    }
                    let mut way: Vec<usize> = trail.iter().map(|(at, _)| *at).collect();
                    let begins = way.iter().position(|at| *at == next).unwrap_or(0);
                    let loop_len = way.len() - begins;
                    way.push(next);
                    return Some((Wrong::Stuck, way, loop_len));
                }
                Mark::New => {
                    let onward = self.onward(next);
                    marks[next] = Mark::OnTrail;
                    let wrong = self.wrong_at_rest(next, &onward, wanted);
                    trail.push((next, onward));
                    if let Some(wrong) = wrong {
                        return Some((wrong, trail.into_iter().map(|(at, _)| at).collect(), 0));
                    }
                }
            }
        }
        None
    }

    fn wrong_at_rest(&self, at: usize, onward: &[usize], wanted: Option<Wrong>) -> Option<Wrong> {
        if !onward.is_empty() {
            return None;
        }
        let world = World::unpack(&self.index.items[at]);
        let wrong = check::at_rest(self.machine, &world)?;
        wanted.is_none_or(|one| one == wrong).then_some(wrong)
    }

    /// The states after regular steps; none for a world that waits for an outside event, because it need not come to
    /// rest.
    fn onward(&self, at: usize) -> Vec<usize> {
        let world = World::unpack(&self.index.items[at]);
        if check::is_excused(self.machine, &world) {
            return Vec::new();
        }
        let mut next = Vec::new();
        self.machine.steps(&world, &mut next);
        let regular = next.iter().filter(|next| next.nature == Nature::Regular);
        let numbers = regular.map(|next| self.index.find(&next.world.pack()));
        numbers.map(|number| number.expect("every regular step was searched") as usize).collect()
    }

    /// The shortest path to a state.
    fn path(&self, number: u32) -> Vec<(World, Next)> {
        let mut numbers = vec![number as usize];
        loop {
            let last = numbers[numbers.len() - 1];
            let parent = self.parents[last] as usize;
            if parent == last {
                break;
            }
            numbers.push(parent);
        }
        numbers.reverse();
        numbers.windows(2).map(|pair| self.link(pair[0], pair[1])).collect()
    }

    /// The step between two consecutive states.
    fn link(&self, from: usize, to: usize) -> (World, Next) {
        let world = World::unpack(&self.index.items[from]);
        let mut next = Vec::new();
        self.machine.steps(&world, &mut next);
        // If several steps lead there, the regular one explains most.
        next.sort_by_key(|next| next.nature != Nature::Regular);
        let step = next.into_iter().find(|next| next.world.pack() == self.index.items[to]);
        (world, step.expect("a step leads from a state to its successor"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    OnTrail,
    Done,
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("a search has fewer than 2^32 states")
}
