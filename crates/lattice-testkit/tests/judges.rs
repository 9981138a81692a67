//! What the comparisons accept and say, and what the bench patterns promise.

use lattice_testkit::coords::canonical;
use lattice_testkit::gradcheck::assert_gradient;
use lattice_testkit::offsets::Kernel;
use lattice_testkit::patterns::{self, Pattern};
use lattice_testkit::relations::submanifold;
use lattice_testkit::tolerances::*;

#[test]
fn comparison_names_the_worst_value() {
    let message = compare(&[1.0, 2.0, 3.0], &[1.0, 2.5, 4.0], F32).expect_err("far apart");
    for part in ["2 of 3 values", "first at 1", "worst at 2", "f32"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(compare(&[1.0], &[1.0, 2.0], F32).expect_err("lengths").contains("expected 1 values, found 2"));
}

#[test]
fn comparison_treats_nan_and_infinity_as_values() {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    assert!(compare(&odd, &odd, EXACT).is_ok());
    for (expected, found) in [
        (0.0, f64::NAN),
        (f64::NAN, 0.0),
        (f64::INFINITY, 1.0),
        (f64::INFINITY, f64::NEG_INFINITY),
        (1.0, f64::INFINITY),
    ] {
        assert!(compare(&[expected], &[found], BF16).is_err(), "{expected} and {found}");
    }
}

#[test]
fn tolerances_fit_the_rounding_of_their_format() {
    let values: Vec<f64> = (0..1000).map(|i| f64::from(i) * 0.731 - 300.0).collect();
    assert_close(&values, &rounded_f32(&values), F32);
    assert_close(&values, &rounded_f16(&values), F16);
    assert_close(&values, &rounded_bf16(&values), BF16);
    assert!(compare(&values, &rounded_bf16(&values), F16).is_err());
    assert_eq!(widened(&[1.5f32, -2.0]), [1.5, -2.0]);
    assert_eq!(widened(&[half::f16::from_f64(0.5)]), [0.5]);
}

#[test]
fn patterns_have_the_neighbours_they_promise() {
    let pairs = |pattern: Pattern, n| submanifold(&pattern.coords(n, 1), &Kernel::cube(3, 1)).edges.len();
    assert_eq!(pairs(Pattern::Line, 4), 10);
    assert_eq!(pairs(Pattern::Isolated, 4), 4);
    assert_eq!(pairs(Pattern::Block(2), 64), 64 * 8);
    assert_eq!(pairs(Pattern::Block(8), 1024), 2 * 22 * 22 * 22);
    assert_eq!(Pattern::Block(2).expected_neighbours(), 8.0);
    for pattern in Pattern::ALL {
        let coords = pattern.coords(300, 2);
        assert_eq!(canonical(&coords).len(), 600, "{}", pattern.name());
    }
    assert_eq!(Pattern::Plane.coords(10, 1)[9], [0, 1, 2, 0]);
    assert_eq!(Pattern::Grid.coords(98, 1)[97], [0, 0, 1, 0]);
    assert_eq!(Pattern::Block(2).coords(9, 1)[8], [0, 5, 0, 0]);
}

#[test]
fn pattern_values_follow_their_formulas() {
    assert_eq!(patterns::points(5)[4], [1.1, 0.05, 0.025]);
    assert_eq!(patterns::points(3 * 290)[3 * 289], [289.0, 0.05, 1.025]);
    assert_eq!(patterns::features(2, 2), [3.0 / 37.0, 4.0 / 37.0, 6.0 / 37.0, 8.0 / 37.0]);
    assert_eq!(patterns::weights(24)[22..], [11.0 / 23.0, -11.0 / 23.0]);
}

#[test]
#[should_panic(expected = "1 of 2 values differ by more than gradient")]
fn a_wrong_gradient_is_found() {
    assert_gradient(|x| x[0] * x[1], &[2.0, 3.0], &[3.0, 2.01]);
}
