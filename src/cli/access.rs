//! Who may come in, as flags of a server: the names are Kubernetes' own.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::value::key_value;
use super::{Explain, Failure, fail};
use crate::server;

/// Accounts, people and the record of what they did.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Access")]
pub(super) struct Access {
    /// Who the tokens of service accounts say has made them: the server's address, if others shall check them
    #[arg(long, value_name = "URL", default_value = server::ISSUER)]
    service_account_issuer: String,
    /// The identity provider (OpenID Connect) whose people may come, https://…
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// For whom the provider has to have made a token
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// The claim that is the user's name
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    oidc_username_claim: String,
    /// Put before user names; `-` is nothing [default: the issuer and `#`, nothing for the claim `email`]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    oidc_username_prefix: String,
    /// The claim that is the user's groups
    #[arg(long, value_name = "CLAIM", default_value = "", hide_default_value = true)]
    oidc_groups_claim: String,
    /// Put before groups
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    oidc_groups_prefix: String,
    /// A claim that must have this value; may be repeated
    #[arg(long = "oidc-required-claim", value_name = "CLAIM=VALUE", value_parser = key_value)]
    oidc_required_claims: Vec<(String, String)>,
    /// The authorities of the provider's certificate, PEM [default: those that browsers trust]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    oidc_ca_file: Option<PathBuf>,
    /// Record every request in this file, one JSON line each; `-` is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    audit_log: Option<PathBuf>,
    /// Begin a new file after so many megabytes
    #[arg(long, value_name = "MB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    audit_log_maxsize: u64,
    /// Keep so many old files
    #[arg(long, value_name = "N", default_value_t = 10)]
    audit_log_maxbackup: u32,
}

impl Access {
    /// Writes what was chosen into a server's options.
    pub(super) fn choose(self, options: &mut server::Options) -> Result<(), Failure> {
        options.issuer = self.service_account_issuer;
        if let (Some(issuer), Some(client_id)) = (self.oidc_issuer_url, self.oidc_client_id) {
            if !issuer.starts_with("https://") {
                return fail(
                    format!("--oidc-issuer-url {issuer} does not begin with https://"),
                    "keys that came over an open line could be anybody's",
                );
            }
            let ca = match &self.oidc_ca_file {
                Some(file) => std::fs::read_to_string(file).doing(format_args!("read {}", file.display()))?,
                None => String::new(),
            };
            options.oidc = Some(server::oidc::Options {
                issuer,
                client_id,
                username_claim: self.oidc_username_claim,
                username_prefix: self.oidc_username_prefix,
                groups_claim: self.oidc_groups_claim,
                groups_prefix: self.oidc_groups_prefix,
                required_claims: self.oidc_required_claims.into_iter().collect(),
                ca,
            });
        }
        options.audit = self.audit_log.map(|path| server::audit::Options {
            path,
            size: self.audit_log_maxsize << 20,
            backups: self.audit_log_maxbackup,
        });
        Ok(())
    }
}
