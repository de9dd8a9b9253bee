//! Files that change while they are followed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Paths, Settings, follow};
use crate::upstream::discovery::Found;
use crate::upstream::discovery::reports::Reports;

/// Longer than any change may take to be seen, and shorter than the refresh.
const DEADLINE: Duration = Duration::from_secs(15);

struct Case {
    folder: TempDir,
    settings: Settings,
}

impl Case {
    fn new(pattern: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(pattern).display().to_string();
        Self {
            folder,
            settings: Settings {
                paths: Paths::try_from(vec![path]).expect("valid"),
                refresh: Duration::from_mins(10),
            },
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// Runs a script while the files are followed; it gets what is reported.
    async fn run(&self, script: impl AsyncFnOnce(&mut Told)) {
        let (sender, reports) = unbounded_channel();
        let reports_to = Reports::new(move |report| {
            let _over = sender.send(report);
        });
        let mut told = Told(reports);
        tokio::select! {
            _ = follow(&self.settings, reports_to) => {}
            done = tokio::time::timeout(DEADLINE, script(&mut told)) => done.expect("in time"),
        }
    }
}

struct Told(UnboundedReceiver<Result<Vec<Found>, String>>);

impl Told {
    async fn next(&mut self) -> Result<Vec<String>, String> {
        let report = self.0.recv().await.expect("it never returns");
        report.map(|list| list.iter().map(|of| of.address.to_string()).collect())
    }

    async fn found(&mut self) -> Vec<String> {
        self.next().await.expect("a list")
    }

    async fn nothing_for(&mut self, time: Duration) {
        let report = tokio::time::timeout(time, self.0.recv()).await;
        assert!(report.is_err(), "{report:?}");
    }
}

fn json(last: u8) -> String {
    format!("[{{\"targets\": [\"10.0.0.{last}:80\"]}}]")
}

#[tokio::test]
async fn a_change_is_seen_and_a_half_written_file_keeps_the_list() {
    let case = Case::new("*.json");
    case.write("a.json", &json(1));
    case.run(async |told| {
        assert_eq!(told.found().await, ["10.0.0.1:80"]);
        case.write("a.json", &json(2));
        assert_eq!(told.found().await, ["10.0.0.2:80"]);

        case.write("a.json", "[{\"targets\": [\"10.0");
        let failure = told.next().await.expect_err("half a file");
        let place = format!("{}:1:19: ", case.path("a.json").display());
        assert!(failure.starts_with(&place), "{failure}");
        case.write("a.json", &json(2));
        // Told again, so that everyone knows that the failure is over.
        assert_eq!(told.found().await, ["10.0.0.2:80"]);

        case.write("b.json", &json(3));
        assert_eq!(told.found().await, ["10.0.0.2:80", "10.0.0.3:80"]);
        fs::remove_file(case.path("a.json")).expect("removed");
        assert_eq!(told.found().await, ["10.0.0.3:80"]);
        fs::remove_file(case.path("b.json")).expect("removed");
        let failure = told.next().await.expect_err("nothing is left");
        assert!(failure.starts_with("no file matches"), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_replaced_is_never_missed() {
    let case = Case::new("a.yaml");
    let yaml = |last: u8| format!("- targets: ['10.0.0.{last}:80']\n");
    case.write("a.yaml", &yaml(1));
    case.run(async |told| {
        assert_eq!(told.found().await, ["10.0.0.1:80"]);
        for last in 2..5 {
            case.write("new", &yaml(last));
            fs::rename(case.path("new"), case.path("a.yaml")).expect("replaced");
            assert_eq!(told.found().await, [format!("10.0.0.{last}:80")]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_config_map_is_seen_when_its_data_is_swapped() {
    let case = Case::new("*.json");
    let version = |name: &str, last: u8| {
        fs::create_dir(case.path(name)).expect("made");
        case.write(&format!("{name}/targets.json"), &json(last));
        symlink(name, case.path("..data_tmp")).expect("linked");
        fs::rename(case.path("..data_tmp"), case.path("..data")).expect("swapped");
    };
    version("..2026_1", 1);
    symlink("..data/targets.json", case.path("targets.json")).expect("linked");
    case.run(async |told| {
        assert_eq!(told.found().await, ["10.0.0.1:80"]);
        for last in 2..4 {
            version(&format!("..2026_{last}"), last);
            fs::remove_dir_all(case.path(&format!("..2026_{}", last - 1))).expect("removed");
            assert_eq!(told.found().await, [format!("10.0.0.{last}:80")]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_folder_that_comes_later_or_anew_is_seen() {
    let case = Case::new("targets/*.json");
    case.run(async |told| {
        let failure = told.next().await.expect_err("nothing there");
        assert!(failure.starts_with("there is no folder"), "{failure}");
        fs::create_dir(case.path("targets")).expect("made");
        case.write("targets/a.json", &json(1));
        while told.next().await.is_err() {}
        fs::rename(case.path("targets"), case.path("old")).expect("moved");
        while told.next().await.is_ok() {}
        fs::create_dir(case.path("targets")).expect("made");
        case.write("targets/a.json", &json(2));
        loop {
            match told.next().await {
                Ok(list) if list == ["10.0.0.2:80"] => return,
                Ok(list) => assert_eq!(list, ["10.0.0.1:80"]),
                Err(_) => {}
            }
        }
    })
    .await;
}

#[tokio::test]
async fn files_are_read_now_and_then_even_if_no_change_was_noticed() {
    let mut case = Case::new("a.json");
    case.settings.refresh = Duration::from_millis(100);
    // The target of a link is not in a folder that is watched once its own folder is another.
    let elsewhere = tempfile::tempdir().expect("a folder");
    fs::create_dir(elsewhere.path().join("one")).expect("made");
    symlink("one", elsewhere.path().join("current")).expect("linked");
    fs::write(elsewhere.path().join("one/a.json"), json(1)).expect("written");
    symlink(elsewhere.path().join("current/a.json"), case.path("a.json")).expect("linked");
    case.run(async |told| {
        assert_eq!(told.found().await, ["10.0.0.1:80"]);
        told.nothing_for(Duration::from_millis(300)).await;
        fs::create_dir(elsewhere.path().join("two")).expect("made");
        fs::write(elsewhere.path().join("two/a.json"), json(2)).expect("written");
        symlink("two", elsewhere.path().join("next")).expect("linked");
        let current = elsewhere.path().join("current");
        fs::rename(elsewhere.path().join("next"), current).expect("swapped");
        assert_eq!(told.found().await, ["10.0.0.2:80"]);
    })
    .await;
}
