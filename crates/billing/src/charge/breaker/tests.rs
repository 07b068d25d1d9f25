//! When the breaker opens, which calls it admits as probes, and when it closes again.

use std::num::NonZeroUsize;

use super::super::window::DOUBTS_MAX;
use super::*;

fn closed() -> Breaker {
    let breaker = Breaker::unproven(Random::seeded(1), None);
    assert!(!send(&breaker, Signal::Good));
    breaker
}

fn send(breaker: &Breaker, signal: Signal) -> bool {
    breaker.admit(Instant::now()).expect("a call is allowed").report(signal, Instant::now())
}

fn is_allowed(breaker: &Breaker) -> bool {
    breaker.admit(Instant::now()).is_some()
}

async fn until_a_probe_is_due(breaker: &Breaker) {
    let Admission::ProbeAt(at) = breaker.admission(Instant::now()) else { panic!("no probe to come") };
    tokio::time::sleep_until(at).await;
}

#[tokio::test(start_paused = true)]
async fn until_it_is_proven_calls_go_one_at_a_time() {
    let breaker = Breaker::unproven(Random::seeded(1), None);
    let first = breaker.admit(Instant::now()).unwrap();
    assert!(!is_allowed(&breaker));
    assert_eq!(breaker.admission(Instant::now()), Admission::Probing);
    assert!(!first.report(Signal::Good, Instant::now()));
    let _one = breaker.admit(Instant::now()).unwrap();
    assert!(is_allowed(&breaker));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_while_the_provider_asks_to_be_left_alone_and_no_operator_shortens_it() {
    let breaker = closed();
    let until = Instant::now() + Duration::from_secs(20);
    let under_way = breaker.admit(Instant::now()).unwrap();
    breaker.hold(until);
    breaker.hold(Instant::now() + Duration::from_secs(3));
    assert!(!under_way.report(Signal::Failure, Instant::now()), "one such answer is no outage");
    breaker.rearm(Instant::now());
    assert!(!is_allowed(&breaker));
    assert!(breaker.is_open(Instant::now()));
    assert_eq!(breaker.admission(Instant::now()), Admission::ProbeAt(until));
    tokio::time::sleep_until(until).await;
    assert!(is_allowed(&breaker));
    assert!(!breaker.is_open(Instant::now()));
    assert_eq!(breaker.admission(Instant::now()), Admission::Clear);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_counts_as_half_open_once_a_probe_is_due_though_none_comes() {
    let breaker = closed();
    for _ in 0..FAILURES_TO_OPEN {
        send(&breaker, Signal::Failure);
    }
    assert!(breaker.is_open(Instant::now()));
    until_a_probe_is_due(&breaker).await;
    assert!(!breaker.is_open(Instant::now()));
    let probe = breaker.admit(Instant::now()).unwrap();
    assert!(breaker.is_open(Instant::now()), "the probe is under way, and no other call is made");
    probe.report(Signal::Failure, Instant::now());
    assert!(breaker.is_open(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_validation_answer_proves_nothing_and_many_open_it() {
    let breaker = Breaker::unproven(Random::seeded(1), None);
    for _ in 0..INVALID_TO_OPEN - 1 {
        assert!(!send(&breaker, Signal::Invalid));
        let _one = breaker.admit(Instant::now()).unwrap();
        assert!(!is_allowed(&breaker));
    }
    assert!(send(&breaker, Signal::Invalid));
}

#[tokio::test(start_paused = true)]
async fn a_few_lost_first_answers_do_not_open_it() {
    let breaker = Breaker::unproven(Random::seeded(1), None);
    for _ in 0..FAILURES_TO_OPEN - 1 {
        assert!(!send(&breaker, Signal::Failure));
    }
    assert!(send(&breaker, Signal::Failure));
}

#[tokio::test(start_paused = true)]
async fn failures_open_it_only_in_a_row() {
    let breaker = closed();
    for _ in 0..3 {
        for _ in 0..FAILURES_TO_OPEN - 1 {
            assert!(!send(&breaker, Signal::Failure));
        }
        assert!(!send(&breaker, Signal::Good));
    }
    for _ in 0..INVALID_TO_OPEN - 1 {
        assert!(!send(&breaker, Signal::Invalid));
    }
    assert!(send(&breaker, Signal::Invalid));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_endpoint_opens_it_at_once_and_a_good_probe_closes_it() {
    let breaker = closed();
    assert!(send(&breaker, Signal::Wrong));
    assert!(breaker.is_open(Instant::now()));
    assert!(!is_allowed(&breaker));
    until_a_probe_is_due(&breaker).await;
    let probe = breaker.admit(Instant::now()).unwrap();
    assert!(!is_allowed(&breaker));
    probe.report(Signal::Good, Instant::now());
    assert_eq!(breaker.admission(Instant::now()), Admission::Clear);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_item_opens_it_only_before_another_has_succeeded_and_as_a_probe() {
    let breaker = Breaker::unproven(Random::seeded(1), None);
    assert!(!breaker.wants_fresh());
    assert!(send(&breaker, Signal::Suspect));
    assert!(breaker.wants_fresh());
    until_a_probe_is_due(&breaker).await;
    send(&breaker, Signal::Suspect);
    assert!(breaker.is_open(Instant::now()));
    until_a_probe_is_due(&breaker).await;
    send(&breaker, Signal::Good);
    for _ in 0..100 {
        assert!(!send(&breaker, Signal::Suspect));
    }
    assert!(!breaker.wants_fresh() && is_allowed(&breaker));
}

#[tokio::test(start_paused = true)]
async fn after_three_failed_probes_a_run_gives_up_within_four_seconds_and_an_operator_may_ask_again() {
    let breaker = closed();
    let begun = Instant::now();
    send(&breaker, Signal::Wrong);
    for _ in 0..PROBES_MAX {
        assert!(!breaker.has_given_up());
        until_a_probe_is_due(&breaker).await;
        send(&breaker, Signal::Failure);
    }
    assert!(breaker.has_given_up());
    let took = begun.elapsed();
    assert!(Duration::from_millis(1750) <= took && took <= Duration::from_millis(3500), "{took:?}");
    breaker.rearm(Instant::now());
    assert!(!breaker.has_given_up());
    assert!(is_allowed(&breaker));
}

#[tokio::test(start_paused = true)]
async fn one_more_bad_invoice_does_not_close_it() {
    let breaker = closed();
    for _ in 0..INVALID_TO_OPEN {
        send(&breaker, Signal::Invalid);
    }
    until_a_probe_is_due(&breaker).await;
    send(&breaker, Signal::Invalid);
    assert!(breaker.is_open(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn late_answers_of_the_window_do_not_close_it() {
    let breaker = closed();
    let early = breaker.admit(Instant::now()).unwrap();
    send(&breaker, Signal::Wrong);
    early.report(Signal::Good, Instant::now());
    assert!(breaker.is_open(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_shows_no_key_latches_it() {
    let breaker = closed();
    assert!(send(&breaker, Signal::Unkeyed));
    tokio::time::advance(Duration::from_secs(3600)).await;
    breaker.rearm(Instant::now());
    assert!(!is_allowed(&breaker));
    assert_eq!(breaker.admission(Instant::now()), Admission::Latched);
    assert!(breaker.has_given_up());
}

fn without_keys(in_flight_max: usize) -> Breaker {
    let window = Window::new(NonZeroUsize::new(in_flight_max).unwrap());
    Breaker::unproven(Random::seeded(1), Some(window))
}

/// Makes calls while one is admitted, as a run does; returns their number.
async fn run(breaker: &Breaker, signal: Signal) -> u32 {
    let mut calls = 0;
    breaker.rearm(Instant::now());
    while !breaker.has_given_up() {
        if let Admission::ProbeAt(at) = breaker.admission(Instant::now()) {
            tokio::time::sleep_until(at).await;
        }
        send(breaker, signal);
        calls += 1;
    }
    calls
}

#[tokio::test(start_paused = true)]
async fn without_keys_no_more_than_five_calls_end_in_doubt_however_often_a_run_is_asked_for() {
    let breaker = without_keys(64);
    assert_eq!(run(&breaker, Signal::Doubt).await, 1 + PROBES_MAX);
    assert_eq!(run(&breaker, Signal::Doubt).await, DOUBTS_MAX - 1 - PROBES_MAX);
    for _ in 0..100 {
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(run(&breaker, Signal::Doubt).await, 0);
    }
    assert!(breaker.awaits_operator() && breaker.is_open(Instant::now()));
    assert_eq!(breaker.admission(Instant::now()), Admission::Latched);
    breaker.resolved();
    assert_eq!(run(&breaker, Signal::Doubt).await, 1, "one was resolved, one more may end so");
}

#[tokio::test(start_paused = true)]
async fn without_keys_a_provider_that_has_recovered_is_called_again() {
    let breaker = without_keys(64);
    run(&breaker, Signal::Doubt).await;
    breaker.rearm(Instant::now());
    send(&breaker, Signal::Good);
    assert_eq!((breaker.admission(Instant::now()), breaker.window()), (Admission::Clear, Some(2)));
}

#[tokio::test(start_paused = true)]
async fn without_keys_trouble_in_mid_run_costs_what_is_under_way_and_five_more_at_most() {
    let breaker = without_keys(16);
    (0..4).for_each(|_| assert!(!send(&breaker, Signal::Good)));
    let under_way: Vec<_> = (0..16).map(|_| breaker.admit(Instant::now()).unwrap()).collect();
    assert!(!is_allowed(&breaker));
    for permit in under_way {
        permit.report(Signal::Doubt, Instant::now());
    }
    assert_eq!(breaker.window(), Some(1));
    let more = run(&breaker, Signal::Doubt).await + run(&breaker, Signal::Doubt).await;
    assert_eq!((more, run(&breaker, Signal::Doubt).await), (DOUBTS_MAX, 0));
}

#[tokio::test(start_paused = true)]
async fn without_keys_a_provider_that_is_not_reached_is_given_up_soon_and_tried_with_each_run() {
    let breaker = without_keys(64);
    assert_eq!(run(&breaker, Signal::Failure).await, UNPROVEN_FAILURES_MAX + PROBES_MAX);
    for _ in 0..10 {
        assert_eq!(run(&breaker, Signal::Failure).await, PROBES_MAX);
    }
    assert!(!breaker.awaits_operator());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_not_made_is_given_back() {
    let breaker = without_keys(1);
    drop(breaker.admit(Instant::now()).unwrap());
    assert!(is_allowed(&breaker));
    let breaker = Breaker::unproven(Random::seeded(1), None);
    drop(breaker.admit(Instant::now()).unwrap());
    assert!(is_allowed(&breaker));
}
