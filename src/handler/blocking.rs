//! Work that blocks a thread, kept off the workers and within bounds.
//!
//! A worker runs thousands of requests on one thread: one that blocks stops them all. So blocking
//! work goes to a pool, whose size and queue are bounded for the process as a whole: when both are
//! full, the answer is [`BlockingError::Busy`] at once rather than memory that grows.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::panic_message;

/// The bounds of the process, of which each worker takes a share for its thread.
#[derive(Debug, Clone)]
pub struct Pool {
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

/// A worker's door to the pool; cheap to clone.
#[derive(Debug, Clone)]
pub struct Blocking(Rc<Pool>);

/// Why blocking work has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockingError {
    /// As much work as the pool takes is running and waiting.
    #[error("the pool for blocking work and its queue are full")]
    Busy,
    /// The work panicked.
    #[error("the blocking work panicked: {0}")]
    Panicked(String),
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopped,
}

impl Pool {
    /// A pool that runs up to `threads` pieces of work at a time (at least one) and lets up to
    /// `queue` more wait.
    ///
    /// The threads are those of the workers' own runtimes, made when they are needed: their
    /// `max_blocking_threads` should not be lower.
    pub fn new(threads: usize, queue: usize) -> Self {
        let running = threads.clamp(1, Semaphore::MAX_PERMITS / 2);
        let queue = queue.min(Semaphore::MAX_PERMITS / 2);
        Self {
            running: Arc::new(Semaphore::new(running)),
            admitted: Arc::new(Semaphore::new(running + queue)),
        }
    }

    /// A worker's door to the pool.
    pub fn for_worker(&self) -> Blocking {
        Blocking(Rc::new(self.clone()))
    }
}

impl Blocking {
    /// Runs `work` on a thread of the pool.
    ///
    /// # Errors
    /// [`BlockingError::Busy`] at once when the queue is full, [`BlockingError::Panicked`] when
    /// the work panicked.
    ///
    /// # Cancel safety
    /// Dropping the future while it waits for its turn takes the work back. Work that has begun
    /// cannot be stopped: it runs to its end and keeps its place until then, and its result is
    /// dropped. Long work should look at a flag or at the deadline by itself.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        let places = self.places().await?;
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(places);
            result
        });
        task.await.map_err(|error| match error.try_into_panic() {
            Ok(panic) => BlockingError::Panicked(panic_message(&*panic).to_owned()),
            Err(_) => BlockingError::Stopped,
        })
    }

    /// A place in the queue, then one among those who run; both are kept until the work has ended.
    async fn places(&self) -> Result<[OwnedSemaphorePermit; 2], BlockingError> {
        let Pool { running, admitted } = &*self.0;
        let place = Arc::clone(admitted)
            .try_acquire_owned()
            .map_err(|_| BlockingError::Busy)?;
        let turn = Arc::clone(running)
            .acquire_owned()
            .await
            .map_err(|_| BlockingError::Stopped)?;
        Ok([place, turn])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn work_gives_its_result_and_a_panic_is_an_error() {
        let blocking = Pool::new(1, 0).for_worker();
        assert_eq!(blocking.run(|| 6 * 7).await, Ok(42));
        let panicked = blocking.run(|| -> u8 { panic!("no more") }).await;
        assert_eq!(panicked, Err(BlockingError::Panicked("no more".into())));
        assert_eq!(blocking.run(|| 1).await, Ok(1));
    }

    #[tokio::test]
    async fn a_full_pool_and_queue_refuse_at_once() {
        let blocking = Pool::new(1, 1).for_worker();
        let (go, gate) = mpsc::channel::<()>();
        let mut first = Box::pin(blocking.run(move || gate.recv().is_ok()));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(blocking.run(|| 2));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(blocking.run(|| 3).await, Err(BlockingError::Busy));

        // Who waits can leave, and makes room.
        drop(second);
        let mut third = Box::pin(blocking.run(|| 3));
        assert!(futures_util::poll!(&mut third).is_pending());
        go.send(()).expect("the first waits");
        assert_eq!(first.await, Ok(true));
        assert_eq!(third.await, Ok(3));
    }

    #[tokio::test]
    async fn work_whose_caller_left_keeps_its_place_until_it_ends() {
        let blocking = Pool::new(1, 0).for_worker();
        let (go, gate) = mpsc::channel::<()>();
        let mut left = Box::pin(blocking.run(move || gate.recv().is_ok()));
        assert!(futures_util::poll!(&mut left).is_pending());
        drop(left);
        assert_eq!(blocking.run(|| 1).await, Err(BlockingError::Busy));
        go.send(()).expect("the work goes on");
        while blocking.run(|| 1).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
