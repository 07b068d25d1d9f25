//! Which traces are recorded: the samplers that OpenTelemetry names, which use a trace's id and its caller's flag
//! alone. Must not know what a trace describes.

use std::str::FromStr;

/// Decides in the same way in each process and for each span of a trace, without communication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    of_root: OfRoot,
    /// Whether a caller's flag decides, if there is a caller.
    is_parent_based: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OfRoot {
    On,
    Off,
    /// Samples traces whose id's low 63 bits are below this number.
    Below(u64),
}

impl Sampler {
    /// `parentbased_always_on`, the specification's default.
    pub const DEFAULT: Self = Self { of_root: OfRoot::On, is_parent_based: true };

    /// The sampler with this name in `OTEL_TRACES_SAMPLER` and the ratio of `OTEL_TRACES_SAMPLER_ARG`, by default 1.
    ///
    /// # Errors
    /// When no sampler has this name, or the ratio is invalid.
    pub fn new(name: &str, ratio: Option<&str>) -> Result<Self, String> {
        let (is_parent_based, root) =
            name.strip_prefix("parentbased_").map_or((false, name), |root| (true, root));
        let of_root = match root {
            "always_on" => OfRoot::On,
            "always_off" => OfRoot::Off,
            "traceidratio" => ratio.unwrap_or("1").parse()?,
            _ => return Err(format!("no sampler is called {name:?} here")),
        };
        Ok(Self { of_root, is_parent_based })
    }

    /// Whether a trace that begins here is sampled.
    #[must_use]
    pub fn samples_root(&self, trace_id: u128) -> bool {
        match self.of_root {
            OfRoot::On => true,
            OfRoot::Off => false,
            OfRoot::Below(bound) => low_63_bits(trace_id) < bound,
        }
    }

    /// Whether a trace that a caller brings is sampled.
    #[must_use]
    pub fn samples_child(&self, trace_id: u128, is_parent_sampled: bool) -> bool {
        if self.is_parent_based { is_parent_sampled } else { self.samples_root(trace_id) }
    }
}

/// Parses a ratio from 0 to 1.
impl FromStr for OfRoot {
    type Err = String;

    #[expect(
        clippy::float_arithmetic,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of the ids, which need not be exact; the bound saturates"
    )]
    fn from_str(text: &str) -> Result<Self, String> {
        let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        let ratio = ratio.ok_or_else(|| format!("{text:?} is no ratio from 0 to 1"))?;
        Ok(Self::Below((ratio * 2f64.powi(63)) as u64))
    }
}

/// The part of an id that the SDKs of other languages compare, so that all processes decide alike.
fn low_63_bits(trace_id: u128) -> u64 {
    u64::try_from(trace_id & u128::from(u64::MAX)).expect("64 bits are left") >> 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Random;

    fn sampler(name: &str, ratio: &str) -> Sampler {
        Sampler::new(name, Some(ratio)).unwrap()
    }

    #[test]
    fn each_name_decides_as_the_specification_says() {
        for (name, root, sampled_child, other_child) in [
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("parentbased_always_on", true, true, false),
            ("parentbased_always_off", false, true, false),
        ] {
            let sampler = sampler(name, "0.5");
            assert_eq!(sampler.samples_root(7), root, "{name}");
            assert_eq!(sampler.samples_child(7, true), sampled_child, "{name}");
            assert_eq!(sampler.samples_child(7, false), other_child, "{name}");
        }
        assert_eq!(Sampler::DEFAULT, sampler("parentbased_always_on", "1"));
    }

    #[test]
    fn a_ratio_samples_its_share_of_random_ids_and_always_the_same_ones() {
        let random = Random::seeded(7);
        let sampler = sampler("parentbased_traceidratio", "0.01");
        let ids: Vec<u128> = (0..100_000).map(|_| random.u128()).collect();
        let sampled = ids.iter().filter(|id| sampler.samples_root(**id)).count();
        assert!((850..1150).contains(&sampled), "{sampled} of 100,000");
        assert!(ids.iter().all(|id| sampler.samples_root(*id) == sampler.samples_root(*id)));
        assert!(sampler.samples_child(u128::MAX, true), "a sampled caller is followed");
    }

    #[test]
    fn the_ends_of_the_ratio_are_none_and_all() {
        assert!(!sampler("traceidratio", "0").samples_root(0));
        assert!(sampler("traceidratio", "1").samples_root(u128::MAX));
        assert!(Sampler::new("traceidratio", None).unwrap().samples_root(u128::MAX));
    }

    #[test]
    fn an_unknown_sampler_or_ratio_is_named() {
        for (name, ratio) in [("jaeger_remote", "1"), ("traceidratio", "2"), ("traceidratio", "NaN")] {
            assert!(Sampler::new(name, Some(ratio)).is_err(), "{name} {ratio}");
        }
    }
}
