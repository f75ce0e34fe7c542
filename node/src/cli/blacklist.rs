//! `quarta blacklist`: who may not see a file.

use clap::Subcommand;
use quarta_daemon::{
    Role,
    cli::{Common, During, ExitCode, Failure, Output},
    client::Target,
};

use crate::api::model::{Blacklist, BlacklistPage, BlacklistRequest, HideRequest};

const ROUTE: &str = "/api/v1/files/blacklist";

/// What to do with a file's list.
#[derive(Debug, Subcommand)]
pub(super) enum Act {
    /// Hide a file from further members
    Add {
        /// The file
        file: String,
        /// The members' names
        #[arg(required = true, value_name = "MEMBER")]
        members: Vec<String>,
    },
    /// Let members see a file again
    Rm {
        /// The file
        file: String,
        /// The members' names
        #[arg(required = true, value_name = "MEMBER")]
        members: Vec<String>,
    },
    /// Show a file's list, or those of all restricted files of this branch
    Ls {
        /// The file
        file: Option<String>,
    },
    /// Hide a file from these members and nobody else; from nobody where none is named
    Set {
        /// The file
        file: String,
        /// The members' names
        #[arg(value_name = "MEMBER")]
        members: Vec<String>,
        /// Show it to these members only instead, also when others join later
        #[arg(long)]
        only: bool,
    },
}

pub(super) async fn act(common: &Common, output: &mut Output, act: Act) -> Result<ExitCode, Failure> {
    let client = common.client(Role::Node)?;
    match act {
        Act::Add { file, members } => {
            let what = format!("cannot hide {file}");
            let request = HideRequest { file, members };
            show(output, &client.post::<Blacklist>(ROUTE, &request).await.during(what)?)?;
        }
        Act::Rm { file, members } => {
            let mut left = None;
            for member in members {
                let target = Target::new(ROUTE).segment(&file).query("member", &member);
                let what = format!("cannot show {file} to {member}");
                left = Some(client.delete::<Blacklist>(target).await.during(what)?);
            }
            if let Some(left) = left {
                show(output, &left)?;
            }
        }
        Act::Set { file, members, only } => {
            let what = format!("cannot change who sees {file}");
            let target = Target::new(ROUTE).segment(&file);
            let request = BlacklistRequest { members, only };
            show(output, &client.put::<Blacklist>(target, &request).await.during(what)?)?;
        }
        Act::Ls { file: Some(file) } => {
            let target = Target::new(ROUTE).segment(&file);
            let what = format!("cannot show who may not see {file}");
            show(output, &client.get::<Blacklist>(target).await.during(what)?)?;
        }
        Act::Ls { file: None } => {
            let lists = client
                .get_all(ROUTE, |page: BlacklistPage| (page.blacklists, page.next))
                .await
                .during("cannot list the restricted files")?;
            output.table(&["FILE", "ID", "SEEN BY"], &lists, |list| {
                vec![list.name.clone(), list.file.chars().take(12).collect(), seen_by(list)]
            })?;
        }
    }
    Ok(ExitCode::Success)
}

fn show(output: &mut Output, list: &Blacklist) -> Result<(), Failure> {
    let waits = if list.announced { "" } else { ", as soon as a super-peer answers and hears of it" };
    output.line(list, &format!("{} is seen by {}{waits}", list.name, seen_by(list)))
}

fn seen_by(list: &Blacklist) -> String {
    let names: Vec<&str> = list.members.iter().map(|member| member.name.as_str()).collect();
    match (list.only, names.as_slice()) {
        (true, []) => "nobody else".to_owned(),
        (true, names) => format!("{} only", names.join(", ")),
        (false, []) => "everybody".to_owned(),
        (false, names) => format!("everybody but {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::Listed;

    fn list(only: bool, names: &[&str]) -> Blacklist {
        let members = names.iter().map(|name| Listed { name: (*name).to_owned(), peer_id: String::new() });
        let (file, name) = ("ab".to_owned(), "plano.csv".to_owned());
        Blacklist { file, name, revision: 1, only, members: members.collect(), announced: true }
    }

    #[test]
    fn a_list_is_told_by_who_sees_the_file() {
        assert_eq!(seen_by(&list(false, &[])), "everybody");
        assert_eq!(seen_by(&list(false, &["natal", "recife"])), "everybody but natal, recife");
        assert_eq!(seen_by(&list(true, &["natal"])), "natal only");
        assert_eq!(seen_by(&list(true, &[])), "nobody else");
    }
}
