//! Questions to what may never answer: the name service, a server in trouble.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The answer, if it comes in that time. The question is asked in a thread of its own, which otherwise ends
/// with the process. Where there can be no further thread, there is no answer.
pub fn timeout<T: Send + 'static>(
    time: Duration,
    question: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (answer, answered) = mpsc::channel();
    let asked = thread::Builder::new().spawn(move || answer.send(question()));
    asked.ok()?;
    answered.recv_timeout(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_answers_holds_nobody_up() {
        assert_eq!(timeout(Duration::from_secs(60), || 7), Some(7));
        let (_silent, never) = mpsc::channel::<()>();
        assert_eq!(
            timeout(Duration::from_millis(10), move || never.recv()),
            None
        );
        let panics = || -> u8 { panic!("it has no answer") };
        assert_eq!(timeout(Duration::from_secs(60), panics), None);
    }
}
