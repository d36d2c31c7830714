//! The agent's configuration.
#![no_main]

use std::path::Path;

use config::Config;
use config::user_database::SystemUsers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::parse(Path::new("agent.toml"), text, &SystemUsers) {
        let of_tokens = config.tokens.iter().map(|token| token.identities.len());
        assert_eq!(config.identities.len(), of_tokens.sum::<usize>());
    }
});
