"""The ONNX operators that an engine or a probe may use, and why no others."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["OPERATORS"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The operators that a graph may use, by domain. Each is a function of its inputs alone that ends
#: after a number of steps that the shapes tell. Left out, and why: If, Loop, Scan (control flow: a
#: graph that need not end, and subgraphs in which the rest could hide); Random*, Multinomial,
#: Dropout (decisions must repeat); ConstantOfShape, Range, Tile, OneHot, Resize (a few bytes make
#: a giant, and a graph with static shapes needs none of them); sequences, maps, optionals, strings
#: and ImageDecoder (parsers); everything of other domains (code that is not ONNX Runtime's own).
OPERATORS: Mapping[str, frozenset[str]] = {
    "": _names(
        # element by element
        "Abs Add And Celu Ceil Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual "
        "HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod "
        "Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign "
        "Sqrt Sub Sum Swish Tanh ThresholdedRelu Where Xor "
        # layers
        "AveragePool BatchNormalization Conv Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool "
        "GroupNormalization InstanceNormalization LayerNormalization LogSoftmax LpNormalization "
        "LpPool LRN MatMul MaxPool MeanVarianceNormalization RMSNormalization Softmax "
        # reductions
        "ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean "
        "ReduceMin ReduceProd ReduceSum ReduceSumSquare TopK "
        # what only moves, copies or casts
        "Cast CastLike Concat Constant DepthToSpace Expand Flatten Gather GatherElements GatherND "
        "Identity Pad Reshape Shape Size Slice SpaceToDepth Split Squeeze Transpose Unsqueeze "
        # whole numbers in place of real ones
        "ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv "
        "QLinearMatMul QuantizeLinear"
    ),
    # What ONNX Runtime's quantiser makes of the above.
    "com.microsoft": _names(
        "DequantizeLinear FusedConv FusedGemm FusedMatMul QGemm QLinearAdd QLinearAveragePool "
        "QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean "
        "QLinearSigmoid QLinearSoftmax QuantizeLinear"
    ),
}
