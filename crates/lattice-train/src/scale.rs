//! The factor that keeps gradients of half precision above its smallest numbers.

use burn::tensor::{Bool, Device, Tensor, TensorData};

/// Loss scaling that follows the gradients: halved where a gradient overflows, whose step is left out, doubled after many that did
/// not. Lives on the device, so a step never waits for it.
#[derive(Clone, Debug)]
pub struct LossScale {
    /// The factor `[1]`.
    pub(crate) factor: Tensor<1>,
    /// Steps in a row without an overflow `[1]`.
    pub(crate) good_steps: Tensor<1>,
    moves: bool,
}

impl LossScale {
    /// First factor where it moves.
    pub const FIRST: f32 = 65_536.0;
    /// Steps without an overflow that double it.
    pub const GROWTH_STEPS: f32 = 1000.0;
    /// Largest factor.
    pub const LARGEST: f32 = 16_777_216.0;

    /// For f16; or the constant 1, for types with the range of f32.
    pub fn new(moves: bool, device: &Device) -> Self {
        let first = if moves { Self::FIRST } else { 1.0 };
        let one = |value: f32| Tensor::from_data(TensorData::new(vec![value], [1]), device);
        Self { factor: one(first), good_steps: one(0.0), moves }
    }

    /// The factor `[1]`.
    pub fn factor(&self) -> Tensor<1> {
        self.factor.clone()
    }

    /// Whether it changes from step to step.
    pub fn moves(&self) -> bool {
        self.moves
    }

    /// After a step whose gradient was finite or not `[1]`.
    pub fn update(&mut self, finite: &Tensor<1, Bool>) {
        if !self.moves {
            return;
        }
        let overflow = finite.clone().bool_not();
        let good = (self.good_steps.clone() + 1.0).mask_fill(overflow.clone(), 0.0);
        let grows = good.clone().greater_equal_elem(Self::GROWTH_STEPS);
        let doubled = self.factor.clone() * 2.0;
        let halved = self.factor.clone() * 0.5;
        let factor = self.factor.clone().mask_where(grows.clone(), doubled).mask_where(overflow, halved);
        self.factor = factor.clamp(f32::MIN_POSITIVE, Self::LARGEST);
        self.good_steps = good.mask_fill(grows, 0.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn value(tensor: &Tensor<1>) -> f32 {
        tensor.clone().into_data().iter::<f32>().next().unwrap()
    }

    #[test]
    fn overflows_halve_it_and_a_long_quiet_doubles_it() {
        let device = Device::flex();
        let answer = |finite: bool| Tensor::<1, Bool>::from_data(TensorData::new(vec![finite], [1]), &device);
        let mut scale = LossScale::new(true, &device);
        scale.update(&answer(false));
        assert_eq!(value(&scale.factor), 32_768.0);
        for _ in 0..999 {
            scale.update(&answer(true));
        }
        assert_eq!(value(&scale.factor), 32_768.0);
        scale.update(&answer(true));
        assert_eq!((value(&scale.factor), value(&scale.good_steps)), (65_536.0, 0.0));
        let mut constant = LossScale::new(false, &device);
        constant.update(&answer(false));
        assert_eq!(value(&constant.factor), 1.0);
    }
}
