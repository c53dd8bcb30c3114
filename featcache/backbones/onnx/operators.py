"""The operators of ONNX that a network may hold: those that only compute, always the same.

Others are refused: `If`, `Loop` and `Scan` run graphs of their own, `RandomNormal` and its like
give another row each time, `ImageDecoder` decodes files, and strings and sequences are no images.
"""

from __future__ import annotations

_ARITHMETIC = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot
    BitwiseOr BitwiseXor Cast CastLike Ceil Clip Cos Cosh CumSum Det Div Einsum Equal Erf Exp Floor
    Gemm Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Log MatMul MatMulInteger Max Mean Min
    Mod Mul Neg Not Or Pow Reciprocal Round Sign Sin Sinh Sqrt Sub Sum Tan Where Xor
"""
_ACTIVATIONS = """
    Celu Elu Gelu HardSigmoid HardSwish Hardmax LeakyRelu LogSoftmax Mish PRelu Relu Selu Shrink
    Sigmoid Softmax Softplus Softsign Swish Tanh ThresholdedRelu
"""
_LAYERS = """
    Attention AveragePool BatchNormalization Conv ConvInteger ConvTranspose DeformConv
    DequantizeLinear Dropout DynamicQuantizeLinear GlobalAveragePool GlobalLpPool GlobalMaxPool GRU
    GroupNormalization InstanceNormalization LayerNormalization LpNormalization LpPool LRN LSTM
    MaxPool MeanVarianceNormalization QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN
    RotaryEmbedding
"""
_REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare
"""
_SHAPES = """
    AffineGrid CenterCropPad Col2Im Compress Concat Constant ConstantOfShape DepthToSpace Expand
    EyeLike Flatten Gather GatherElements GatherND GridSample Identity NonZero OneHot Pad Range
    Reshape Resize ReverseSequence ScatterElements ScatterND Shape Size Slice SpaceToDepth Split
    Squeeze Tile TopK Transpose Trilu Unsqueeze Upsample
"""

OPERATORS = frozenset(" ".join((_ARITHMETIC, _ACTIVATIONS, _LAYERS, _REDUCTIONS, _SHAPES)).split())

# Why the most frequent of the others are refused, and what to do.
REASONS = {
    **dict.fromkeys(
        ("If", "Loop", "Scan", "SequenceMap"),
        "it runs a graph of its own. Export the network for one size of images, and simplify it, "
        "for example with onnxsim",
    ),
    **dict.fromkeys(
        (
            "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
            "RandomUniformLike",
        ),
        "it draws random numbers, so that an image would have another row each time. Export the "
        "network in its evaluation mode",
    ),
}  # fmt: skip

# Operators whose output (b, c, h, w) has the channels second, by their definition.
_CHANNELS_SECOND = """
    AveragePool BatchNormalization Conv ConvInteger ConvTranspose DeformConv DepthToSpace
    GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization InstanceNormalization LpPool LRN
    MaxPool QLinearConv SpaceToDepth
"""
CHANNELS_SECOND = frozenset(_CHANNELS_SECOND.split())
# Operators whose output has the axes of their inputs.
_SAME_AXES = """
    Abs Add Cast CastLike Ceil Clip Concat DequantizeLinear Div Dropout Erf Exp Floor Identity Log
    Max Mean Min Mul Neg Pad Pow PRelu QuantizeLinear Reciprocal Resize Round Sign Slice Sqrt Sub
    Sum Upsample Where
"""
SAME_AXES = frozenset(_ACTIVATIONS.split()) | frozenset(_SAME_AXES.split())
