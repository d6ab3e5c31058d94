//! The same bits for every number of tasks and threads. Every entry point and every walk, in tensors large enough to be
//! cut in every way that there is.

use normdrop::{
    Activation, Config, Dropout, GeluTanh, Identity, Layer, Moments, Parameters, Reduce, Relu, Running, Shape,
    Statistics,
};

use crate::backends::{Data, LARGE, Problem, Results, compare, run};

/// The numbers of tasks that are compared with one; 64 are more than most of the tensors have room for.
const TASKS: [usize; 4] = [2, 3, 7, 64];

fn compare_calls<A: Activation>(problem: &Problem, activation: A) {
    let (mut one, mut many) = (Results::default(), Results::default());
    let layer = problem.layer(activation, None);
    run(&layer, problem, &mut one);
    for count in TASKS {
        run(&layer.with_tasks(count), problem, &mut many);
        compare(problem, activation, (&format!("{count} tasks"), "one"), &many, &one);
    }
}

#[test]
fn every_call_gives_the_same_bits_for_every_number_of_tasks() {
    for (number, &(shape, _)) in LARGE.iter().enumerate() {
        compare_calls(&Problem::new(shape, Data::ByChannel, Some(0.1), number), Relu);
        compare_calls(&Problem::new(shape, Data::Ordinary, [None, Some(0.5)][number % 2], number + 1), Identity);
        if number % 4 == 0 {
            compare_calls(&Problem::new(shape, Data::Offset, Some(0.1), number + 2), GeluTanh);
        }
    }
}

#[test]
fn the_bits_are_the_same_in_pools_of_any_size() {
    let problem = Problem::new([40, 16, 1000], Data::ByChannel, Some(0.1), 5);
    let layer = problem.layer(Relu, None);
    let (mut one, mut many) = (Results::default(), Results::default());
    run(&layer, &problem, &mut one);
    for threads in [1, 2, 3, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of threads");
        for count in TASKS {
            pool.install(|| run(&layer.with_tasks(count), &problem, &mut many));
            compare(&problem, Relu, (&format!("{count} tasks on {threads} threads"), "one"), &many, &one);
        }
    }
}

#[test]
fn the_statistics_of_a_part_are_the_same_bits_for_every_number_of_tasks() {
    for (number, &(shape, _)) in LARGE.iter().enumerate() {
        let problem = Problem::new(shape, Data::ByChannel, Some(0.1), number);
        let channels = problem.shape.channels();
        let (mean, var) = (vec![0.25; channels], vec![2.0; channels]);
        let statistics = |count: usize| {
            let layer = problem.layer(Relu, None).with_tasks(count);
            let mut scratch = vec![f64::NAN; layer.scratch_len()];
            let (mut moments, mut sums) = (vec![f64::NAN; layer.moments_len()], vec![f64::NAN; layer.sums_len()]);
            let call = Moments { input: &problem.x, moments: &mut moments, scratch: &mut scratch };
            layer.moments(call).expect("moments without faults");
            layer
                .reduce(Reduce {
                    parameters: Parameters::default(),
                    statistics: Statistics::Fixed(Running::new(&mean, &var)),
                    dropout: problem.mask.as_deref().map_or(Dropout::Off, Dropout::Mask),
                    input: &problem.x,
                    residual: None,
                    grad_output: &problem.dy,
                    sums: &mut sums,
                    scratch: &mut scratch,
                })
                .expect("sums without faults");
            let bits = |value: &f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
            moments.iter().chain(&sums).map(bits).collect::<Vec<u64>>()
        };
        let one = statistics(1);
        for count in TASKS {
            assert!(statistics(count) == one, "{shape:?}: {count} tasks");
        }
    }
}

#[test]
fn a_mask_is_the_same_for_every_number_of_tasks() {
    for elements in [1, 40_961, 1_048_575, 1_048_576, 1_200_007, 2_000_003] {
        for p in [0.1, 0.5] {
            let shape = Shape::new(1, 1, elements).expect("a shape that fits memory");
            let layer = Layer::new(shape, Relu, Config { p, ..Config::DEFAULT }).expect("constants in their ranges");
            let draw = |count: usize| {
                let mut mask = vec![0xA5; layer.mask_len()];
                layer.with_tasks(count).fill_mask(99, &mut mask).expect("a mask of the right length");
                mask
            };
            let one = draw(1);
            for count in TASKS {
                assert!(draw(count) == one, "{elements} elements, p {p}, {count} tasks");
            }
        }
    }
}

/// Tasks need tables of their own: the lengths say so, and too little scratch is refused as ever.
#[test]
fn the_scratch_grows_with_the_tasks() {
    // Tables begin with a line of the caches, 64 bytes: up to seven values are before it.
    const BEFORE: usize = 7;
    let layer =
        Layer::new(Shape::nc(100, 64).expect("a shape"), Relu, Config::DEFAULT).expect("constants in their ranges");
    let lengths = |count: usize| {
        let layer = layer.with_tasks(count);
        [layer.eval_scratch_len(), layer.train_scratch_len(), layer.backward_scratch_len()]
    };
    let ([eval, train, backward], [eval_2, train_2, backward_2]) = (lengths(1), lengths(2));
    assert_eq!((eval, train, backward), (2 * 64 + BEFORE, 5 * 64 + BEFORE, 9 * 64 + BEFORE));
    assert_eq!((eval_2, train_2, backward_2), (2 * 64 + BEFORE, 7 * 64 + BEFORE, 12 * 64 + BEFORE));
    assert_eq!(lengths(7)[2], (6 + 7 * 3) * 64 + BEFORE);
    // A group of runs has sixteen channels; where tasks share it 256, and more if those are not worth sharing.
    for (length, shared) in [(100, 16), (500, 528), (1000, 272), (2000, 256)] {
        let layer =
            Layer::new(Shape::ncl(2, 1000, length).expect("a shape"), Relu, Config::DEFAULT).expect("constants");
        assert_eq!(layer.train_scratch_len(), 5 * 16 + BEFORE);
        assert_eq!(layer.with_tasks(2).eval_scratch_len(), 2 * shared + BEFORE, "{length}");
        assert_eq!(layer.with_tasks(2).train_scratch_len(), 7 * shared + BEFORE, "{length}");
    }
    // So it is with strips of a wide matrix.
    for (rows, shared) in [(20, 4096), (64, 8192), (200, 4096)] {
        let layer = Layer::new(Shape::nc(rows, 20_000).expect("a shape"), Relu, Config::DEFAULT).expect("constants");
        assert_eq!(layer.eval_scratch_len(), 2 * 4096 + BEFORE);
        assert_eq!(layer.with_tasks(2).eval_scratch_len(), 2 * shared + BEFORE, "{rows} rows");
    }
}

#[test]
fn a_scratch_length_does_not_overflow_for_any_number_of_tasks() {
    for shape in [Shape::nc(8, 5000), Shape::ncl(3, 40, 100)] {
        let layer = Layer::new(shape.expect("a shape"), Relu, Config::DEFAULT).expect("constants in their ranges");
        let most = layer.with_tasks(1 << 16);
        for count in [1 << 17, usize::MAX / 8, usize::MAX] {
            let more = layer.with_tasks(count);
            assert_eq!(more.train_scratch_len(), most.train_scratch_len(), "{count} tasks");
            assert_eq!(more.backward_scratch_len(), most.backward_scratch_len(), "{count} tasks");
        }
        assert!(most.train_scratch_len() > layer.train_scratch_len());
    }
}

/// A child of `fork` has the memory of its parent and not its threads: it must not wait for them.
#[cfg(unix)]
mod fork {
    use std::ffi::{c_int, c_uint};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use normdrop::Relu;

    use crate::backends::{Data, Problem, Results, compare, run};

    unsafe extern "C" {
        fn fork() -> c_int;
        fn waitpid(process: c_int, status: *mut c_int, options: c_int) -> c_int;
        fn alarm(seconds: c_uint) -> c_uint;
        fn _exit(status: c_int) -> !;
    }

    /// Whether some work comes to its end in a child of this process, and says yes.
    fn in_a_child(work: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child calls nothing but `work` and these functions, and ends without a return to the test's threads. What
        // it allocates it may: the allocator of the system is in order after a fork.
        unsafe {
            let process = fork();
            if process == 0 {
                alarm(60);
                let right = catch_unwind(AssertUnwindSafe(work)).unwrap_or(false);
                _exit(if right { 0 } else { 1 });
            }
            let mut status = -1;
            assert!(process > 0 && waitpid(process, &raw mut status, 0) == process);
            status == 0
        }
    }

    #[test]
    fn a_child_of_fork_comes_to_an_end_with_the_same_bits() {
        let problem = Problem::new([40, 16, 1000], Data::ByChannel, Some(0.1), 6);
        let layer = problem.layer(Relu, None).with_tasks(2);
        let results = || {
            let mut results = Results::default();
            run(&layer, &problem, &mut results);
            results
        };
        let same = |expected: &Results| {
            let found = results();
            compare(&problem, Relu, ("the child", "the parent"), &found, expected);
            true
        };
        let parents = results();
        assert!(in_a_child(|| same(&parents)), "with the global pool of the parent");
        let pool = || rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool of threads");
        assert!(in_a_child(|| pool().install(|| same(&parents))), "with a pool of its own");
        let inside = pool().install(|| {
            assert!(same(&parents));
            in_a_child(|| same(&parents))
        });
        assert!(inside, "from a thread of a pool");
        assert!(in_a_child(|| same(&parents) && in_a_child(|| same(&parents))), "a child of a child");
        assert!(same(&parents), "the parent itself");
    }
}
