use super::*;
use crate::backend::Cpu;
use crate::gpt::Gpt;
use crate::scaler::INITIAL_SCALE;
use crate::testing::{Slopes, small_gpt, text_batch, values};

const SEED: u64 = 42;
/// Any tokens: [`Slopes`] does not look at them.
const TOKENS: (&[u8], usize, usize) = (&[0; 2], 1, 2);

fn schedule(steps: u64) -> Schedule {
    Schedule::new(3e-3, 5, steps).unwrap()
}

fn slopes(entries: &[(&[f32], bool, Option<f32>)], precision: Precision) -> Trainer<Cpu, Slopes> {
    Trainer::new(Slopes::new(entries), precision, Schedule::new(0.1, 0, 10).unwrap()).unwrap()
}

/// All weights and moments, to the bit.
fn state(trainer: &Trainer<Cpu, Gpt<Cpu>>) -> Vec<u32> {
    let weights = trainer.model().parameters().iter().flat_map(|p| values(&p.value));
    let moments = trainer.optimizer().moments().flatten().flat_map(values);
    weights.chain(moments).map(f32::to_bits).collect()
}

/// Losses of a run on the small text, and the trainer.
fn train(precision: Precision, steps: u64) -> (Vec<f32>, Trainer<Cpu, Gpt<Cpu>>) {
    let mut trainer = Trainer::new(small_gpt(SEED), precision, schedule(steps)).unwrap();
    let step = |step| trainer.step(&text_batch(SEED + step, 8, 33), 8, 33).unwrap();
    let losses =
        (0..steps).map(step).filter(|outcome| !outcome.skipped).map(|outcome| outcome.loss).collect();
    (losses, trainer)
}

#[test]
fn it_learns_in_every_precision_and_half_precision_keeps_up() {
    println!("seed {SEED}");
    let last = |losses: &[f32]| losses[losses.len() - 5..].iter().sum::<f32>() / 5.0;
    let (exact, _) = train(Precision::Fp32, 50);
    for precision in Precision::ALL {
        let (losses, trainer) = train(precision, 50);
        let (first, last, exact) = (losses[0], last(&losses), last(&exact));
        println!("{precision}: {first} -> {last}, fp32 {exact}");
        assert!(first - last > 1.0, "{precision}: {first} -> {last}");
        assert!((last / exact - 1.0).abs() < 0.05, "{precision}: {last}, fp32 {exact}");
        let unseen = trainer.evaluate(&text_batch(1, 8, 33), 8, 33).unwrap();
        assert!((unseen / last - 1.0).abs() < 0.2, "{precision}: evaluates to {unseen} after {last}");
    }
}

#[test]
fn the_same_run_gives_the_same_bits_and_evaluation_changes_none() {
    let (losses, trainer) = train(Precision::Bf16, 6);
    let before = state(&trainer);
    trainer.evaluate(&text_batch(9, 3, 20), 3, 20).unwrap();
    assert_eq!(state(&trainer), before);
    let (again, trainer) = train(Precision::Bf16, 6);
    assert_eq!((losses, before), (again, state(&trainer)));
}

#[test]
fn an_overflow_skips_the_update_and_leaves_everything_but_the_scale() {
    let trainer = Trainer::new(small_gpt(SEED), Precision::Fp16, schedule(20)).unwrap();
    let mut trainer = trainer.with_scaler(GradScaler::enabled().with_scale(1e30));
    let tokens = text_batch(SEED, 8, 33);
    let before = state(&trainer);
    let outcome = trainer.step(&tokens, 8, 33).unwrap();
    assert!(outcome.skipped && !outcome.grad_norm.is_finite(), "{outcome:?}");
    assert_eq!((outcome.scale, trainer.scaler().scale()), (1e30, 5e29));
    assert_eq!(state(&trainer), before);
    assert_eq!(trainer.optimizer().updates(), 0);

    let mut trainer = trainer.with_scaler(GradScaler::enabled());
    let good = trainer.step(&tokens, 8, 33).unwrap();
    assert!(!good.skipped, "{good:?}");
    assert_eq!(good.lr, outcome.lr, "the skipped step must not have moved the schedule");
    assert_eq!((good.scale, trainer.optimizer().updates()), (INITIAL_SCALE, 1));
    assert_ne!(state(&trainer), before);
}

#[test]
fn fp16_that_always_overflows_stops_with_a_diagnosis() {
    let mut trainer = slopes(&[(&[1.0], true, Some(f32::INFINITY))], Precision::Fp16);
    let outcomes: Vec<_> = (0..10).map(|_| trainer.step(TOKENS.0, TOKENS.1, TOKENS.2)).collect();
    assert!(outcomes[..9].iter().all(|outcome| outcome.as_ref().is_ok_and(|outcome| outcome.skipped)));
    assert_eq!(outcomes[9].as_ref().unwrap_err().kind(), ErrorKind::Diverged);
}

#[test]
fn good_steps_let_the_scale_grow() {
    let mut trainer = slopes(&[(&[1.0], true, Some(1.0))], Precision::Fp16);
    for _ in 0..2_000 {
        trainer.step(TOKENS.0, TOKENS.1, TOKENS.2).unwrap();
    }
    assert_eq!(trainer.scaler().scale(), 2.0 * INITIAL_SCALE);
}

#[test]
fn the_loss_scale_does_not_change_the_update() {
    // Slopes are powers of two, so that scaling by one is exact.
    let entries: [(&[f32], bool, Option<f32>); 2] =
        [(&[0.3, -0.7], true, Some(0.25)), (&[0.1], false, Some(-8.0))];
    let mut scaled = slopes(&entries, Precision::Fp16);
    let mut plain = slopes(&entries, Precision::Fp32);
    for _ in 0..3 {
        let a = scaled.step(TOKENS.0, TOKENS.1, TOKENS.2).unwrap();
        let b = plain.step(TOKENS.0, TOKENS.1, TOKENS.2).unwrap();
        assert_eq!((a.scale, b.scale), (65_536.0, 1.0));
        assert!((a.grad_norm - b.grad_norm).abs() < 1e-5, "{a:?} {b:?}");
    }
    for (a, b) in scaled.model().parameters().iter().zip(plain.model().parameters()) {
        assert_eq!(values(&a.value), values(&b.value), "{}", a.name);
    }
}

#[test]
fn the_norm_is_over_all_parameters_and_the_moments_see_the_clipped_gradient() {
    // Gradients 3, 3, 3, 3 and 8: norm 10.
    let mut trainer = slopes(&[(&[0.0; 4], true, Some(3.0)), (&[0.0], true, Some(8.0))], Precision::Fp32);
    let outcome = trainer.step(TOKENS.0, TOKENS.1, TOKENS.2).unwrap();
    assert!((outcome.grad_norm - 10.0).abs() < 1e-5, "{outcome:?}");
    let first_moments: Vec<f32> =
        trainer.optimizer().moments().flat_map(|[first, _]| values(first)).collect();
    for (found, expected) in first_moments.iter().zip([0.03, 0.03, 0.03, 0.03, 0.08]) {
        assert!((found - expected).abs() < 1e-6, "{first_moments:?}");
    }
}

#[test]
fn a_parameter_without_a_gradient_is_named() {
    let mut trainer = slopes(&[(&[1.0], true, Some(1.0)), (&[1.0], true, None)], Precision::Fp32);
    let error = trainer.step(TOKENS.0, TOKENS.1, TOKENS.2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert_eq!(error.to_string(), "parameter `p1` received no gradient in step 1");
    assert!(error.hint().is_some());
}

#[test]
fn a_loss_that_is_not_finite_names_the_step() {
    for precision in [Precision::Fp32, Precision::Bf16] {
        let mut trainer = slopes(&[(&[1.0], true, Some(f32::NAN))], precision);
        let error = trainer.step(TOKENS.0, TOKENS.1, TOKENS.2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Diverged);
        assert!(error.to_string().contains("loss NaN") && error.to_string().contains("in step 1"), "{error}");
        assert_eq!(
            values(&trainer.model().parameters()[0].value),
            [1.0],
            "the weights are those of the last good step"
        );
    }
}

#[test]
fn tokens_that_do_not_fit_the_shape_are_refused() {
    let mut trainer = slopes(&[(&[1.0], true, Some(1.0))], Precision::Fp32);
    assert_eq!(trainer.step(&[0; 5], 2, 3).unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(trainer.evaluate(&[0; 5], 2, 3).unwrap_err().kind(), ErrorKind::Misuse);
}
