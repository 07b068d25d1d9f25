//! Authentication settings: proofs, accepted subjects, rate limit. Text in, checked rules out.
//! Must not know the service, nor the headers that carry the credentials.

use std::num::NonZeroU32;
use std::path::PathBuf;

use http::Uri;
use http::uri::Scheme;

use super::problems::Problems;
use super::setting::{Setting, checked, parse_path, parse_text};
use super::values::{Common, CommonArgs};
use crate::caller::{Accounts, CallerRules, JwtRules, KeySource, Proof, Tokens};
use crate::client::http_url;
use crate::clock::Clock;

/// The values of a pod in a cluster. They are not clap's defaults: any setting of signed tokens without an audience is
/// a mistake.
const ISSUER_DEFAULT: &str = "https://kubernetes.default.svc.cluster.local";
const JWKS_URL_DEFAULT: &str = "https://kubernetes.default.svc/openid/v1/jwks";
const CREDENTIALS_DEFAULT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Authentication flags and variables.
#[derive(Clone, Debug, clap::Args)]
pub struct CallerArgs {
    /// Whether a caller needs any or all of the configured proofs: certificate, signed token, static token
    #[arg(long, env = "CALLER_PROOF", value_name = "ANY|ALL", help_heading = "Callers", default_value = "any",
          value_parser = checked(parse_proof))]
    caller_proof: Setting<Proof>,
    /// Rate limit per account in requests per second, with a burst of one second. Excess requests get 429
    #[arg(long, env = "CALLER_RATE_MAX", value_name = "NUMBER", help_heading = "Callers", default_value = "50000",
          value_parser = checked(parse_rate))]
    caller_rate_max: Setting<NonZeroU32>,
    /// Required audience of signed tokens (Authorization: Bearer); enables them [default: off]
    #[arg(long, env = "JWT_AUDIENCE", value_name = "NAME", help_heading = "Callers",
          value_parser = checked(parse_text))]
    jwt_audience: Setting<String>,
    /// Accepted subjects of signed tokens, as SUBJECT or SUBJECT=ACCOUNT, separated by commas
    #[arg(long, env = "JWT_SUBJECTS", value_name = "SUBJECTS", help_heading = "Callers", value_parser = checked(Accounts::parse))]
    jwt_subjects: Setting<Accounts>,
    #[arg(
        long,
        env = "JWT_ISSUER",
        value_name = "NAME",
        help_heading = "Callers",
        value_parser = checked(parse_text),
        help = "Issuer of signed tokens [default: https://kubernetes.default.svc.cluster.local]"
    )]
    jwt_issuer: Setting<String>,
    #[arg(
        long,
        env = "JWT_JWKS_URL",
        value_name = "URL",
        help_heading = "Callers",
        value_parser = checked(parse_jwks_url),
        help = "URL of the issuer's JWKS [default: https://kubernetes.default.svc/openid/v1/jwks]"
    )]
    jwt_jwks_url: Setting<Uri>,
    /// Directory with ca.crt and an optional token for fetching the JWKS
    /// [default: /var/run/secrets/kubernetes.io/serviceaccount]
    #[arg(long, env = "JWT_CREDENTIALS", value_name = "FOLDER", help_heading = "Callers",
          value_parser = checked(parse_path))]
    jwt_credentials: Setting<PathBuf>,
}

impl CallerArgs {
    /// Checks the settings and the files that they name, together with the common settings; `None` when a mistake was
    /// recorded. Where a certificate is only one of several proofs, the handshake no longer requires it.
    pub fn resolve(
        &self,
        given: &CommonArgs,
        common: &mut Common,
        problems: &mut Problems,
    ) -> Option<CallerRules> {
        let proof = self.caller_proof.value(problems);
        let rate_max = self.caller_rate_max.value(problems);
        let jwt = self.resolve_jwt(problems);
        let tokens = common.tokens.clone().map(|source| source.accepted_on(common.listen));
        let file = given.payments_api_token_file.name();
        let tokens = tokens.map(|source| problems.check(file, Tokens::read(&source).map(|_| source)));
        let (proof, rate_max, jwt) = (proof?, rate_max?, jwt.ok()?);
        let tokens = tokens.map_or(Some(None), |source| source.map(Some))?;
        let clients = common.tls.as_mut().and_then(|tls| tls.clients.as_mut());
        if let Some(clients) = clients {
            let is_one_of_several = jwt.is_some() || common.tokens.is_some();
            clients.is_required = proof == Proof::All || !is_one_of_several;
        }
        Some(CallerRules {
            proof,
            certificates: common.certificates.clone(),
            jwt,
            tokens,
            rate_max: Some(rate_max),
        })
    }

    /// `Err` when a mistake was recorded.
    fn resolve_jwt(&self, problems: &mut Problems) -> Result<Option<(JwtRules, KeySource)>, ()> {
        let Some(audience) = self.jwt_audience.optional(problems).ok_or(())? else {
            return self.check_no_jwt(problems);
        };
        let issuer = self.jwt_issuer.optional(problems).ok_or(())?;
        let issuer = issuer.unwrap_or_else(|| ISSUER_DEFAULT.to_owned());
        if !self.jwt_subjects.is_given() {
            let what = "is missing, and --jwt-audience is given: list the accepted subjects";
            problems.add(self.jwt_subjects.name(), what);
        }
        let subjects = self.jwt_subjects.optional(problems);
        let url = self.jwt_jwks_url.optional(problems).ok_or(())?;
        let url = url.unwrap_or_else(|| Uri::from_static(JWKS_URL_DEFAULT));
        let credentials = self.jwt_credentials.optional(problems).ok_or(())?;
        let source =
            KeySource { url, credentials: credentials.unwrap_or_else(|| CREDENTIALS_DEFAULT.into()) };
        let mistakes = source.files(self.jwt_credentials.name()).check(&Clock::system());
        for mistake in &mistakes {
            problems.add(&mistake.setting, &mistake.what);
        }
        let Some(Some(subjects)) = subjects else { return Err(()) };
        if mistakes.is_empty() {
            Ok(Some((JwtRules { issuer, audience, subjects }, source)))
        } else {
            Err(())
        }
    }

    /// Checks that no other setting of signed tokens is given: without an audience they are off.
    fn check_no_jwt(&self, problems: &mut Problems) -> Result<Option<(JwtRules, KeySource)>, ()> {
        let settings = [
            (self.jwt_issuer.name(), self.jwt_issuer.is_given()),
            (self.jwt_subjects.name(), self.jwt_subjects.is_given()),
            (self.jwt_jwks_url.name(), self.jwt_jwks_url.is_given()),
            (self.jwt_credentials.name(), self.jwt_credentials.is_given()),
        ];
        let given: Vec<&str> =
            settings.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
        for setting in &given {
            problems.add(setting, "is given, but no --jwt-audience: say for whom tokens must be issued");
        }
        if given.is_empty() { Ok(None) } else { Err(()) }
    }
}

fn parse_proof(text: &str) -> Result<Proof, String> {
    match text {
        "any" => Ok(Proof::Any),
        "all" => Ok(Proof::All),
        _ => Err(format!("\"{text}\" is neither any nor all")),
    }
}

fn parse_rate(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no whole number from 1 to {}", u32::MAX))
}

fn parse_jwks_url(text: &str) -> Result<Uri, String> {
    let url = http_url(text, JWKS_URL_DEFAULT)?;
    match url.scheme() == Some(&Scheme::HTTPS) {
        true => Ok(url),
        false => Err(format!("\"{text}\" is no URL over https, as {JWKS_URL_DEFAULT} is")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::caller::RATE_MAX;
    use crate::config::CommonDefaults;

    const DEFAULTS: CommonDefaults = CommonDefaults {
        service: "shop",
        listen: "127.0.0.1:0",
        admin_listen: "127.0.0.1:0",
        database_url: "sqlite:./shop.db",
    };

    #[derive(Parser)]
    #[command(mut_args = |arg| DEFAULTS.declare(arg))]
    struct Args {
        #[command(flatten)]
        common: CommonArgs,
        #[command(flatten)]
        callers: CallerArgs,
    }

    fn resolve(words: &[&str]) -> Result<CallerRules, String> {
        let args = Args::try_parse_from(["shop"].iter().chain(words)).unwrap();
        let mut problems = Problems::new();
        let mut common = args.common.resolve(&DEFAULTS, &mut problems).unwrap();
        let rules = args.callers.resolve(&args.common, &mut common, &mut problems);
        problems.finish().map_err(|error| error.to_string())?;
        Ok(rules.unwrap())
    }

    fn authority() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        std::fs::write(folder.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        folder
    }

    #[test]
    fn by_default_one_proof_is_enough_and_no_signed_token_is_accepted() {
        let rules = resolve(&[]).unwrap();
        assert_eq!((rules.proof, rules.jwt, rules.rate_max), (Proof::Any, None, Some(RATE_MAX)));
    }

    #[test]
    fn an_audience_and_subjects_are_enough_in_a_pod() {
        let folder = authority();
        let credentials = folder.path().to_str().unwrap();
        let words = ["--jwt-audience", "payments", "--jwt-subjects", "system:serviceaccount:antaeus:antaeus"];
        let (rules, source) =
            resolve(&[&words[..], &["--jwt-credentials", credentials]].concat()).unwrap().jwt.unwrap();
        assert_eq!(rules.issuer, ISSUER_DEFAULT);
        assert_eq!(source.url, JWKS_URL_DEFAULT);
        let mistakes = resolve(&[&words[..], &["--jwt-credentials", "/nowhere"]].concat()).unwrap_err();
        assert!(
            mistakes.contains("--jwt-credentials (JWT_CREDENTIALS)") && mistakes.contains("/nowhere/ca.crt"),
            "{mistakes}"
        );
    }

    /// The defaults are not clap's, so that the text of `--help` must repeat them.
    #[test]
    fn help_says_the_defaults_that_a_pod_finds() {
        let help = Args::command().term_width(400).render_long_help().to_string();
        for default in [ISSUER_DEFAULT, JWKS_URL_DEFAULT, CREDENTIALS_DEFAULT] {
            assert!(help.contains(&format!("[default: {default}]")), "{default} in {help}");
        }
        let connections = format!("[default: {}]", crate::postgres::CONNECTIONS_MAX);
        assert!(help.contains(&connections), "{connections} in {help}");
    }

    #[test]
    fn every_mistake_is_reported() {
        let words = ["--caller-proof", "some", "--caller-rate-max", "0", "--jwt-issuer", "x"];
        let mistakes = resolve(&words).unwrap_err();
        for setting in ["(CALLER_PROOF)", "(CALLER_RATE_MAX)", "--jwt-issuer (JWT_ISSUER): is given"] {
            assert!(mistakes.contains(setting), "{setting} in {mistakes}");
        }
        for url in ["http://keys/", "https://keys:99999/"] {
            let mistakes = resolve(&["--jwt-audience", "payments", "--jwt-jwks-url", url]).unwrap_err();
            assert!(mistakes.contains("(JWT_SUBJECTS)") && mistakes.contains("(JWT_JWKS_URL)"), "{mistakes}");
        }
    }
}
