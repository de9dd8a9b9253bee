//! The process's signals, as orders.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::app::Order;

/// TERM and INT drain, a second one stops; HUP reloads; USR1 reopens logs; QUIT stops.
///
/// # Errors
/// When the system does not let a signal be taken.
pub(crate) fn take(orders: &mpsc::UnboundedSender<Order>) -> std::io::Result<()> {
    let drain = || {
        let mut asked = false;
        move || {
            if std::mem::replace(&mut asked, true) {
                Order::Stop
            } else {
                Order::Drain
            }
        }
    };
    follow(SignalKind::terminate(), orders, drain())?;
    follow(SignalKind::interrupt(), orders, drain())?;
    follow(SignalKind::hangup(), orders, || Order::Reload(None))?;
    follow(SignalKind::user_defined1(), orders, || Order::ReopenLogs)?;
    follow(SignalKind::quit(), orders, || Order::Stop)
}

fn follow(
    kind: SignalKind,
    orders: &mpsc::UnboundedSender<Order>,
    mut order: impl FnMut() -> Order + Send + 'static,
) -> std::io::Result<()> {
    let mut signal: Signal = signal(kind)?;
    let orders = orders.clone();
    // Ends with the runtime of the control thread.
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            if orders.send(order()).is_err() {
                return;
            }
        }
    });
    Ok(())
}
