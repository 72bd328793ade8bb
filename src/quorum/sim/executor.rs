//! Runs every task of several processes in one thread, in an order that the seed decides.
//!
//! tokio's own scheduler would not do: some of its parts wake their waiters in a random order, and a `select!` that is not
//! biased begins with a random branch. Here the tasks that can go on are a set, from which the seed picks the next, so it does not
//! matter in which order they were woken. And a [`Sleep`] that is over waits until nothing else can go on at that instant, so of
//! the branches of a `select!` with one never two are ready. Time is tokio's, paused: it jumps to the next timer when nobody
//! can go on.
//!
//! A process that is stopped is not run, whatever wakes it; one that is killed is dropped, with all its tasks, between two steps.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::env::SeededEntropy;

/// One start of one node; 0 is everything that is no node: the network, the clients, whoever injects faults.
pub type Process = u64;
pub const OUTSIDE: Process = 0;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A sleep that is over, with whoever waits for it.
struct Over {
    sleep: u64,
    task: u64,
    waker: Waker,
}

/// Tasks that can go on. Wakers may come from tokio's timers, so this is shared.
#[derive(Default)]
struct Ready {
    tasks: Mutex<BTreeSet<u64>>,
    outer: Mutex<Option<Waker>>,
}

struct TaskWaker {
    ready: Arc<Ready>,
    task: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.tasks.lock().unwrap().insert(self.task);
        if let Some(outer) = self.ready.outer.lock().unwrap().as_ref() {
            outer.wake_by_ref();
        }
    }
}

struct Executor {
    tasks: RefCell<BTreeMap<u64, (Process, Option<Task>)>>,
    ready: Arc<Ready>,
    stopped: RefCell<BTreeSet<Process>>,
    next: Cell<u64>,
    /// The task that is run, with its process.
    current: Cell<(u64, Process)>,
    over: RefCell<VecDeque<Over>>,
    /// The sleep that may end now.
    granted: Cell<u64>,
    order: SeededEntropy,
    steps: Cell<u64>,
}

thread_local! {
    static EXECUTOR: RefCell<Option<Rc<Executor>>> = const { RefCell::new(None) };
}

fn executor() -> Option<Rc<Executor>> {
    EXECUTOR.with(|executor| executor.borrow().clone())
}

fn running() -> Rc<Executor> {
    executor().expect("a simulation runs on this thread")
}

/// Whether this thread runs a simulation.
pub fn is_running() -> bool {
    executor().is_some()
}

/// Runs `main`, outside all processes, until it ends; what is left of the others is dropped. With the number of steps.
pub fn run<T: Send + 'static>(seed: u64, main: impl Future<Output = T> + Send + 'static) -> (T, u64) {
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    let executor = Rc::new(Executor {
        tasks: RefCell::default(),
        ready: Arc::default(),
        stopped: RefCell::default(),
        next: Cell::new(1),
        current: Cell::new((0, OUTSIDE)),
        over: RefCell::default(),
        granted: Cell::new(0),
        order: SeededEntropy::new(seed),
        steps: Cell::new(0),
    });
    let _uninstall = Uninstall;
    EXECUTOR.with(|slot| *slot.borrow_mut() = Some(executor.clone()));
    let result = Arc::new(Mutex::new(None));
    let slot = result.clone();
    executor.add(OUTSIDE, Box::pin(async move { *slot.lock().unwrap() = Some(main.await) }));
    let all = std::future::poll_fn(|context| {
        *executor.ready.outer.lock().unwrap() = Some(context.waker().clone());
        while executor.step() {
            if let Some(result) = result.lock().unwrap().take() {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    });
    // tokio would have a task that does much at once give way to its others, of which there are none.
    let result = runtime.block_on(tokio::task::unconstrained(all));
    let steps = executor.steps.get();
    executor.drop_tasks(|_| true);
    (result, steps)
}

/// Also when a task panics: the next simulation on this thread begins anew.
struct Uninstall;

impl Drop for Uninstall {
    fn drop(&mut self) {
        let gone = EXECUTOR.with(|slot| slot.borrow_mut().take());
        // While a task is being dropped it may still want to know that there is no executor any more.
        drop(gone);
    }
}

impl Executor {
    fn add(&self, process: Process, task: Task) {
        let id = self.number();
        self.tasks.borrow_mut().insert(id, (process, Some(task)));
        self.ready.tasks.lock().unwrap().insert(id);
    }

    fn number(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    fn may_run(&self, task: u64) -> bool {
        let tasks = self.tasks.borrow();
        tasks.get(&task).is_some_and(|(process, _)| !self.stopped.borrow().contains(process))
    }

    /// Runs one task a bit; false if none can go on.
    fn step(&self) -> bool {
        let pick = {
            let mut ready = self.ready.tasks.lock().unwrap();
            ready.retain(|task| self.tasks.borrow().contains_key(task));
            let able: Vec<u64> = ready.iter().copied().filter(|task| self.may_run(*task)).collect();
            let pick = (!able.is_empty()).then(|| able[self.order.below(able.len() as u64) as usize]);
            pick.inspect(|task| assert!(ready.remove(task)))
        };
        if let Some(task) = pick {
            self.poll(task);
            return true;
        }
        let over = self.over.borrow().iter().position(|over| self.may_run(over.task));
        let Some(over) = over.and_then(|at| self.over.borrow_mut().remove(at)) else {
            self.over.borrow_mut().retain(|over| self.tasks.borrow().contains_key(&over.task));
            return false;
        };
        self.granted.set(over.sleep);
        over.waker.wake();
        self.ready.tasks.lock().unwrap().remove(&over.task);
        self.poll(over.task);
        self.granted.set(0);
        true
    }

    fn poll(&self, task: u64) {
        let taken =
            self.tasks.borrow_mut().get_mut(&task).and_then(|(process, future)| Some((*process, future.take()?)));
        let Some((process, mut future)) = taken else { return };
        let waker = Waker::from(Arc::new(TaskWaker { ready: self.ready.clone(), task }));
        self.current.set((task, process));
        self.steps.set(self.steps.get() + 1);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending()
            && let Some((_, slot)) = self.tasks.borrow_mut().get_mut(&task)
        {
            *slot = Some(future);
            self.current.set((0, OUTSIDE));
            return;
        }
        self.tasks.borrow_mut().remove(&task);
        drop(future);
        self.current.set((0, OUTSIDE));
    }

    fn drop_tasks(&self, of: impl Fn(Process) -> bool) {
        let mut tasks = self.tasks.borrow_mut();
        let gone: Vec<u64> = tasks.iter().filter(|(_, (process, _))| of(*process)).map(|(task, _)| *task).collect();
        let gone: Vec<_> = gone.iter().filter_map(|task| tasks.remove(task)).collect();
        drop(tasks);
        drop(gone);
    }
}

/// A number that no process has had.
pub fn new_process() -> Process {
    running().number()
}

/// Begins a task of the process that is running.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    let executor = running();
    let (_, process) = executor.current.get();
    executor.add(process, Box::pin(task));
}

/// Begins a task of a process, which is gone with it.
pub fn spawn_in(process: Process, task: impl Future<Output = ()> + Send + 'static) {
    running().add(process, Box::pin(task));
}

/// Does work as a process: what it spawns is that process's.
pub async fn inside<T: Send + 'static>(process: Process, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    spawn_in(process, async move { drop(done.send(work.await)) });
    result.await.ok()
}

/// SIGKILL.
pub fn kill(process: Process) {
    let executor = running();
    assert_ne!(process, executor.current.get().1, "a process that kills itself");
    executor.stopped.borrow_mut().remove(&process);
    executor.drop_tasks(|of| of == process);
}

/// SIGSTOP.
pub fn stop(process: Process) {
    running().stopped.borrow_mut().insert(process);
}

/// SIGCONT.
pub fn resume(process: Process) {
    let executor = running();
    executor.stopped.borrow_mut().remove(&process);
    if let Some(outer) = executor.ready.outer.lock().unwrap().as_ref() {
        outer.wake_by_ref();
    }
}

/// A sleep of openraft.
pub struct Sleep {
    timer: Pin<Box<tokio::time::Sleep>>,
    /// In a simulation: its number once it is over.
    over: Option<u64>,
}

impl Sleep {
    pub fn new(timer: tokio::time::Sleep) -> Sleep {
        Sleep { timer: Box::pin(timer), over: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(executor) = executor() else { return self.timer.as_mut().poll(context) };
        if let Some(number) = self.over {
            return if executor.granted.get() == number { Poll::Ready(()) } else { Poll::Pending };
        }
        if self.timer.as_mut().poll(context).is_ready() {
            let number = executor.number();
            self.over = Some(number);
            let (task, waker) = (executor.current.get().0, context.waker().clone());
            executor.over.borrow_mut().push_back(Over { sleep: number, task, waker });
        }
        Poll::Pending
    }
}

mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::sleep;

    /// The order in which ten tasks, which all wait for the same, come to it.
    fn order(seed: u64) -> Vec<u64> {
        let (order, _) = run(seed, async {
            let order = Arc::new(Mutex::new(Vec::new()));
            let begin = tokio::sync::watch::Sender::new(false);
            for task in 0..10 {
                let (order, mut begin) = (order.clone(), begin.subscribe());
                spawn(async move {
                    drop(begin.changed().await);
                    order.lock().unwrap().push(task);
                });
            }
            sleep(Duration::from_secs(1)).await;
            begin.send_replace(true);
            sleep(Duration::from_secs(1)).await;
            order.lock().unwrap().clone()
        });
        order
    }

    #[test]
    fn the_seed_decides_who_goes_on() {
        assert_eq!(order(1).len(), 10);
        for seed in 0..20 {
            assert_eq!(order(seed), order(seed));
        }
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn a_stopped_process_is_late_and_a_killed_one_is_gone() {
        let (counts, _) = run(1, async {
            let count = Arc::new(Mutex::new(0));
            let counts = |wait: u64| {
                let count = count.clone();
                async move {
                    sleep(Duration::from_millis(wait)).await;
                    *count.lock().unwrap()
                }
            };
            let (process, ticks) = (new_process(), count.clone());
            spawn_in(process, async move {
                loop {
                    sleep(Duration::from_millis(10)).await;
                    *ticks.lock().unwrap() += 1;
                }
            });
            let mut seen = vec![counts(105).await];
            stop(process);
            seen.push(counts(100).await);
            resume(process);
            seen.push(counts(100).await);
            kill(process);
            seen.push(counts(1_000).await);
            assert_eq!(inside(process, async { 7 }).await, Some(7));
            seen
        });
        assert_eq!(counts[..2], [10, 10]);
        assert!(counts[2] >= 19 && counts[3] == counts[2], "{counts:?}");
    }

    #[test]
    fn of_a_sleep_and_a_message_at_the_same_instant_the_message_is_first() {
        for seed in 0..50 {
            let (heard, _) = run(seed, async {
                let (send, receive) = tokio::sync::oneshot::channel();
                spawn(async move {
                    sleep(Duration::from_millis(7)).await;
                    send.send(()).unwrap();
                });
                tokio::select! {
                    () = Sleep::new(sleep(Duration::from_millis(7))) => false,
                    _ = receive => true,
                }
            });
            assert!(heard, "seed {seed}");
        }
    }
}
