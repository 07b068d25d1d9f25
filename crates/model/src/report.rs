//! Runs the cases, a few at a time, and prints the table: the bounds and size of each search, its result, and how often
//! each kind of fault and each class of answer occurred. Knows no step.

use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use billing::protocol::transition::AnswerClass;
use chassis::clock::Clock;

use crate::cases::{Case, Size, broken, sound};
use crate::display;
use crate::faults::Fault;
use crate::machine::Machine;
use crate::search::{Report, SearchCounts, search};

/// Number of concurrent searches; each has its own states.
const AT_ONCE: usize = 2;

/// Minimum number of states that the sound cases of the full size reach together.
const STATES_MIN: usize = 1_000_000;

struct Done {
    report: Report,
    ms: i64,
}

impl Done {
    fn is_right(&self, case: &Case) -> bool {
        self.report.found.as_ref().map(|found| found.wrong) == case.breaks
    }
}

/// Runs every case (or those whose names contain `only`) and prints the results; `true` if all are as expected.
pub(crate) fn run(size: Size, only: Option<&str>) -> anyhow::Result<bool> {
    let mut cases = sound(size);
    cases.extend(broken());
    cases.retain(|case| only.is_none_or(|part| case.name.contains(part)));
    let done = search_all(&cases);
    let mut out = stdout().lock();
    let mut right = table(&mut out, &cases, &done)?;
    if only.is_none() {
        right &= print_counts(&mut out, &done)?;
        right &= enough(&mut out, size, &cases, &done)?;
        if right && size == Size::Full {
            leave_row(&cases, &done)?;
        }
    }
    Ok(right)
}

/// Reports a failure of the model itself.
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    let _lost = writeln!(stderr(), "the model could not finish: {error:#}");
    ExitCode::FAILURE
}

fn search_all(cases: &[Case]) -> Vec<Done> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Done)>> = Mutex::new(Vec::new());
    let work = || {
        while let Some((at, case)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            cases.get(at).map(|case| (at, case))
        } {
            let clock = Clock::system();
            let began = clock.now_ms();
            let report = search(&Machine::new(case.protocol, case.bounds), case.breaks);
            let ms = clock.now_ms() - began;
            done.lock().unwrap_or_else(PoisonError::into_inner).push((at, Done { report, ms }));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, done)| done).collect()
}

fn table(out: &mut impl Write, cases: &[Case], done: &[Done]) -> anyhow::Result<bool> {
    writeln!(out, "{:<43} {:<32} {:>10} {:>5} {:>8}", "case", "verdict", "states", "depth", "seconds")?;
    let mut right = true;
    for (case, done) in cases.iter().zip(done) {
        let found = done.report.found.as_ref().map(|found| found.wrong.words());
        let verdict = match (found, case.breaks.map(|wrong| wrong.words())) {
            (None, None) => "holds".to_owned(),
            (Some(found), Some(_)) => format!("caught: {found}"),
            (Some(found), None) => format!("BROKEN: {found}"),
            (None, Some(wanted)) => format!("NOT CAUGHT: {wanted}"),
        };
        right &= done.is_right(case);
        let (states, depth) = (done.report.states, done.report.depth);
        let seconds = format!("{}.{:03}", done.ms / 1000, done.ms % 1000);
        writeln!(out, "{:<43} {verdict:<32} {states:>10} {depth:>5} {seconds:>8}", case.name)?;
    }
    for (case, done) in cases.iter().zip(done) {
        if let Some(found) = &done.report.found {
            writeln!(out, "\n{}: the shortest way", case.name)?;
            for line in display::describe_path(found) {
                writeln!(out, "  {line}")?;
            }
        }
    }
    Ok(right)
}

/// Prints how often each kind occurred in all cases together; `false` if a kind never did.
fn print_counts(out: &mut impl Write, done: &[Done]) -> anyhow::Result<bool> {
    let mut sum = SearchCounts::new();
    done.iter().for_each(|done| sum.add(&done.report.counts));
    writeln!(out, "\nfaults and acts of people, steps searched")?;
    for (fault, count) in Fault::ALL.iter().zip(&sum.faults) {
        writeln!(out, "  {:<38} {count:>12}", fault.words())?;
    }
    writeln!(out, "classes of responses, steps searched")?;
    for (class, count) in AnswerClass::ALL.iter().zip(&sum.classes) {
        writeln!(out, "  {:<38} {count:>12}", format!("{class:?}"))?;
    }
    let all = sum.faults.iter().chain(&sum.classes).all(|count| *count > 0);
    if !all {
        writeln!(out, "WRONG: something of the above never occurred")?;
    }
    Ok(all)
}

fn enough(out: &mut impl Write, size: Size, cases: &[Case], done: &[Done]) -> anyhow::Result<bool> {
    let states = |broken: bool| -> usize {
        let of = cases.iter().zip(done).filter(|(case, _)| case.breaks.is_some() == broken);
        of.map(|(_, done)| done.report.states).sum()
    };
    let caught = cases.iter().zip(done).filter(|(case, done)| case.breaks.is_some() && done.is_right(case));
    let (sound, broken) = (states(false), cases.iter().filter(|case| case.breaks.is_some()).count());
    writeln!(
        out,
        "\nstates of the sound protocols {sound}; variants and limits caught {} of {broken}",
        caught.count()
    )?;
    let enough = size == Size::Small || sound >= STATES_MIN;
    if !enough {
        writeln!(out, "WRONG: fewer than {STATES_MIN} states")?;
    }
    Ok(enough)
}

/// Writes the row for `make prove`, as every proof does.
fn leave_row(cases: &[Case], done: &[Done]) -> anyhow::Result<()> {
    let Some(folder) = std::env::var_os("PROVE_OUT").filter(|folder| !folder.is_empty()) else {
        return Ok(());
    };
    let states: usize = done.iter().map(|done| done.report.states).sum();
    let caught = cases.iter().filter(|case| case.breaks.is_some()).count();
    let took_ms = done.iter().map(|done| done.ms).sum::<i64>() / AT_ONCE as i64;
    let row = format!(
        "{{\"what\":\"model\",\"how_many\":\"{states} states, {caught} variants caught\",\"double\":0,\
         \"lost\":0,\"took_ms\":{took_ms}}}\n"
    );
    std::fs::write(std::path::Path::new(&folder).join("model.json"), row)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_holds_and_every_broken_variant_is_caught() {
        let is_full = std::env::var_os("MODEL_SIZE").is_some_and(|size| size == "full");
        assert!(run(if is_full { Size::Full } else { Size::Small }, None).unwrap());
    }
}
