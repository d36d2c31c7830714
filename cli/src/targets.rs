//! `roleseal targets`

use client::environment::Environment;
use client::target::{Target, TargetError, TargetTable};
use serde::Serialize;

use crate::common::{CommandError, Common};
use crate::output::{self, OutputError};
use crate::table::table;

pub(crate) fn run(common: &Common, json: bool) -> Result<(), CommandError> {
    let environment = Environment::of_process();
    let files = common.target_files(&environment);
    let (mut rows, mut fault) = (Vec::new(), None);
    for table in files.all().map_err(client::Error::from)? {
        let (row, misfit) = row(common, &environment, table);
        rows.push(row);
        fault = fault.or(misfit);
    }
    let text = if json {
        serde_json::to_string_pretty(&rows).map_err(OutputError::from)? + "\n"
    } else if rows.is_empty() {
        format!("There are no targets in {}.\n", files.searched())
    } else {
        show(&rows)
    };
    output::print_text(&text)?;
    match fault {
        Some(fault) => Err(client::Error::from(fault).into()),
        None => Ok(()),
    }
}

/// A target as scripts see it.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    file: String,
    #[serde(flatten)]
    settings: Option<Settings>,
    /// What does not fit, instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// With what the environment and the defaults say. What is left out is not set at all.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    role_arn: String,
    profile_arn: String,
    trust_anchor_arn: String,
    region: String,
    endpoint: String,
    session_duration: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    role_session_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_bundle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    socket: String,
    /// Whose pods may have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_accounts: Vec<String>,
}

fn row(
    common: &Common,
    environment: &Environment,
    table: TargetTable,
) -> (Row, Option<TargetError>) {
    let mut settings = common.over(table.settings);
    let accounts = settings
        .service_accounts
        .iter()
        .map(ToString::to_string)
        .collect();
    let template = settings
        .take_template()
        .map(|template| template.to_string());
    let (name, file) = (table.name.to_string(), table.file.display().to_string());
    let (settings, error) = match settings.target(Some(table.name), environment) {
        Ok(target) => (Some(Settings::of(target, template, accounts)), None),
        Err(error) => (None, Some(error)),
    };
    let row = Row {
        name,
        file,
        settings,
        error: error.as_ref().map(ToString::to_string),
    };
    (row, error)
}

impl Settings {
    fn of(target: Target, template: Option<String>, service_accounts: Vec<String>) -> Settings {
        let session = target.session;
        Settings {
            identity: session.identity,
            role_arn: session.target.role().to_string(),
            profile_arn: session.target.profile().to_string(),
            trust_anchor_arn: session.target.trust_anchor().to_string(),
            region: session.target.region().to_string(),
            endpoint: session.endpoint.to_string(),
            session_duration: session.duration.seconds(),
            role_session_name: session
                .session_name
                .map(|name| name.to_string())
                .or(template),
            ca_bundle: target
                .route
                .ca_bundle
                .map(|path| path.display().to_string()),
            proxy: target.route.proxy.map(|proxy| proxy.shown().to_owned()),
            socket: target.socket.display().to_string(),
            service_accounts,
        }
    }
}

const HEADINGS: [&str; 5] = ["NAME", "IDENTITY", "ROLE", "ENDPOINT", "FILE"];

fn show(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let known = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let settings = row.settings.as_ref();
        [
            row.name.clone(),
            known(settings.and_then(|settings| settings.identity.as_deref())),
            known(settings.map(|settings| settings.role_arn.as_str())),
            known(settings.map(|settings| settings.endpoint.as_str())),
            row.file.clone(),
        ]
    };
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (cells(row), row.error.iter().cloned().collect()))
        .collect();
    table(HEADINGS, &rows)
}
