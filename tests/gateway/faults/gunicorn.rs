//! Real gunicorn, restarted under load in every way that operators know: no request fails.

use std::net::TcpListener;
use std::time::Duration;

use super::load::{Load, Plan, get};
use super::rig::turn;
use super::{CONNECTIONS, RETRY, WATCH, gateway, pass};
use crate::harness::program::{Program, signal, venv};
use crate::harness::{eventually, http1, project, soon};

/// When the gateway must have noticed that an app is up again: its next check, and some time for a busy machine.
const SETTLED: Duration = Duration::from_millis(700);

/// A master with two workers on a port of its own.
struct Master {
    port: u16,
    program: Program,
}

impl Master {
    async fn start(port: u16) -> Self {
        let mut command = venv("gunicorn");
        command
            .args(["-k", "gevent", "--workers", "2", "--no-control-socket"])
            .args(["--graceful-timeout", "5", "--chdir"])
            .arg(project("tests/peers"))
            .args(["--bind", &format!("127.0.0.1:{port}"), "fault_app:app"]);
        let program = Program::start("gunicorn", command);
        soon("gunicorn", program.errors.find_text("Listening at"))
            .await
            .expect("gunicorn listens");
        let this = Self { port, program };
        this.renewed(&[]).await;
        this
    }

    /// The ids of the workers.
    fn workers(&self) -> Vec<u32> {
        let id = self.program.id();
        let path = format!("/proc/{id}/task/{id}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        let ids = children.split_whitespace();
        ids.filter_map(|id| id.parse().ok()).collect()
    }

    /// Waits until none of these workers is left, two others are there, and one of them answers: a rolling
    /// restart goes on when the app is up again, not when its processes are there.
    async fn renewed(&self, old: &[u32]) {
        eventually(
            "new workers",
            || std::future::ready(self.workers()),
            |workers| workers.len() == 2 && workers.iter().all(|id| !old.contains(id)),
        )
        .await;
        let answer = http1::get(([127, 0, 0, 1], self.port).into(), "/healthz").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

async fn masters() -> Vec<Master> {
    let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
    futures_util::future::join_all(ports.into_iter().map(Master::start)).await
}

fn endpoints(masters: &[Master]) -> String {
    let quoted = masters
        .iter()
        .map(|one| format!("\"127.0.0.1:{}\"", one.port));
    quoted.collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn a_rolling_restart_loses_no_request() {
    let _turn = turn();
    let mut masters = masters().await;
    let gateway = gateway(&endpoints(&masters), RETRY, WATCH).await;
    let load = Load::start(Plan {
        gateway: gateway.public(),
        rate: 150,
        connections: CONNECTIONS,
        request: get,
    });
    pass(Duration::from_millis(500)).await;
    for master in &mut masters {
        let old = master.workers();
        master.program.signal("HUP");
        master.renewed(&old).await;
        pass(SETTLED).await;
    }
    for master in &mut masters {
        master.program.signal("TERM");
        master.program.exited().await;
        pass(Duration::from_millis(300)).await;
        *master = Master::start(master.port).await;
        pass(SETTLED).await;
    }
    for master in &mut masters {
        for worker in master.workers() {
            signal(worker, "KILL");
            master.renewed(&[worker]).await;
        }
    }
    let samples = load.stop().await;
    println!("rolling restart: {samples}");
    assert!(samples.failed().is_empty(), "{}", samples.complaints());
}

#[tokio::test]
async fn connections_that_gunicorn_closes_after_two_idle_seconds_lose_no_request() {
    let _turn = turn();
    let masters = masters().await;
    let gateway = gateway(&endpoints(&masters), RETRY, WATCH).await;
    for round in 0..3_u64 {
        let load = Load::start(Plan {
            gateway: gateway.public(),
            rate: 400,
            connections: CONNECTIONS,
            request: |number| format!("GET /wait/{number} HTTP/1.1\r\nhost: faults\r\n\r\n"),
        });
        pass(Duration::from_millis(200)).await;
        let samples = load.stop().await;
        println!("burst {round}: {samples}");
        assert!(samples.failed().is_empty(), "{}", samples.complaints());
        // The connections of this burst are as old as gunicorn allows when the next one comes.
        pass(Duration::from_millis(1800 + 50 * round)).await;
    }
}
