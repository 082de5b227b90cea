/* pw_attention as a plugin of TensorRT: IPluginV3 with its three capabilities, and its creator.
 *
 * Inputs are q [rows, heads, head_dim], the slabs of keys and values, page ids, and a plan: the
 * bytes of pw_attention_plan, which the engine makes on the host from the step's lengths and
 * copies to the device as it does page ids. So enqueue reads nothing back and waits for nothing,
 * and fits a captured graph. The output is that of q. What a call is, is one field: the bytes of
 * a pw_attention_desc, the same as the plan was made with; they know their own version.
 */
#include <NvInferRuntime.h>
#include <cstring>
#include <memory>
#include <pagewise.h>
#include <string>

namespace {

using namespace nvinfer1;

constexpr char const *NAME = "PagewiseAttention", *VERSION = "1", *NAMESPACE = "";
constexpr int32_t Q = 0, KEYS = 1, VALUES = 2, PAGE_IDS = 3, PLAN = 4, INPUTS = 5, OUT = INPUTS;

using Device = std::shared_ptr<pw_device>; // never changes: all clones share it

void tell(std::string const &what) noexcept {
    if (ILogger *logger = getLogger()) logger->log(ILogger::Severity::kERROR, what.c_str());
}

/* 0, as TensorRT has it, or what went wrong told to its logger. */
int32_t outcome(pw_status status, pw_error const &error) noexcept {
    if (status != PW_OK) tell(std::string(NAME) + ": " + error.field + ": " + error.message);
    return status == PW_OK ? 0 : 1;
}

int32_t refused(char const *what) noexcept {
    tell(std::string(NAME) + ": " + what);
    return 1;
}

pw_error no_error() noexcept {
    pw_error error{};
    error.struct_size = sizeof error;
    return error;
}

/* Whether a type of TensorRT has the bits of ours; no other is taken. */
bool is(DataType type, pw_dtype dtype) noexcept {
    switch (dtype) {
    case PW_F32: return type == DataType::kFLOAT;
    case PW_F16: return type == DataType::kHALF;
    case PW_BF16: return type == DataType::kBF16;
    case PW_E4M3: return type == DataType::kFP8;
    default: return false;
    }
}

class Attention final : public IPluginV3,
                        public IPluginV3OneCore,
                        public IPluginV3OneBuild,
                        public IPluginV3OneRuntime {
  public:
    Attention(Device on, std::string name, pw_attention_desc const &what, pw_needs const &takes)
        : device(std::move(on)), device_name(std::move(name)), desc(what), needs(takes) {}

    // ---- IPluginV3

    IPluginCapability *getCapabilityInterface(PluginCapabilityType type) noexcept override {
        switch (type) {
        case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore *>(this);
        case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild *>(this);
        case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime *>(this);
        }
        return nullptr;
    }

    IPluginV3 *clone() noexcept override {
        try {
            return new Attention(device, device_name, desc, needs);
        } catch (std::exception const &failure) {
            refused(failure.what());
            return nullptr;
        }
    }

    // ---- IPluginV3OneCore

    AsciiChar const *getPluginName() const noexcept override { return NAME; }
    AsciiChar const *getPluginVersion() const noexcept override { return VERSION; }
    AsciiChar const *getPluginNamespace() const noexcept override { return NAMESPACE; }

    // ---- IPluginV3OneBuild

    int32_t getNbOutputs() const noexcept override { return 1; }

    int32_t getOutputDataTypes(DataType *outputs, int32_t output_count, DataType const *inputs,
                               int32_t input_count) const noexcept override {
        if (input_count != INPUTS || output_count != 1) return refused("takes five inputs and has one output");
        outputs[0] = inputs[Q];
        return 0;
    }

    int32_t getOutputShapes(DimsExprs const *inputs, int32_t input_count, DimsExprs const *, int32_t,
                            DimsExprs *outputs, int32_t output_count, IExprBuilder &) noexcept override {
        if (input_count != INPUTS || output_count != 1) return refused("takes five inputs and has one output");
        outputs[0] = inputs[Q];
        return 0;
    }

    bool supportsFormatCombination(int32_t pos, DynamicPluginTensorDesc const *tensors, int32_t,
                                   int32_t) noexcept override {
        PluginTensorDesc const &tensor = tensors[pos].desc;
        if (tensor.format != TensorFormat::kLINEAR) return false;
        switch (pos) {
        case Q: return is(tensor.type, desc.q_dtype);
        case OUT: return is(tensor.type, desc.out_dtype);
        case KEYS:
        case VALUES: return is(tensor.type, desc.kv.dtype);
        default: return tensor.type == DataType::kINT32; // page ids, and the plan in words
        }
    }

    int32_t configurePlugin(DynamicPluginTensorDesc const *in, int32_t, DynamicPluginTensorDesc const *,
                            int32_t) noexcept override {
        if (in[Q].max.nbDims != 3 || in[Q].max.d[0] > desc.rows_max) return refused("q has more rows than rows_max");
        return 0;
    }

    size_t getWorkspaceSize(DynamicPluginTensorDesc const *, int32_t, DynamicPluginTensorDesc const *,
                            int32_t) const noexcept override {
        return needs.workspace_bytes; // of any lengths within the descriptor's capacity
    }

    // ---- IPluginV3OneRuntime

    int32_t onShapeChange(PluginTensorDesc const *in, int32_t, PluginTensorDesc const *, int32_t) noexcept override {
        Dims const &q = in[Q].dims;
        if (q.nbDims != 3 || q.d[0] != desc.rows_max || q.d[1] != desc.q_heads || q.d[2] != desc.kv.head_dim)
            return refused("q is not [rows, q_heads, head_dim] of its descriptor");
        // A slab holds all its pages; how heads and tokens lie in one is the descriptor's.
        for (int32_t slab : {KEYS, VALUES})
            if (in[slab].dims.nbDims < 1 || in[slab].dims.d[0] != desc.kv.pages)
                return refused("keys and values do not have the pages of their descriptor");
        return 0;
    }

    int32_t enqueue(PluginTensorDesc const *in, PluginTensorDesc const *, void const *const *inputs,
                    void *const *outputs, void *workspace, cudaStream_t stream) noexcept override {
        pw_attention_args args{};
        args.struct_size = sizeof args;
        args.run.plan = inputs[PLAN];
        args.run.plan_bytes = sizeof(int32_t) * static_cast<uint64_t>(in[PLAN].dims.d[0]);
        args.run.workspace = workspace;
        args.run.workspace_bytes = needs.workspace_bytes;
        args.q = inputs[Q];
        args.keys = inputs[KEYS];
        args.values = inputs[VALUES];
        args.page_ids = static_cast<uint32_t const *>(inputs[PAGE_IDS]);
        args.out = outputs[0];
        pw_error error = no_error();
        return outcome(pw_attention_run(device.get(), &desc, &args, stream, &error), error);
    }

    IPluginV3 *attachToContext(IPluginResourceContext *) noexcept override { return clone(); }

    PluginFieldCollection const *getFieldsToSerialize() noexcept override {
        fields[0] = {"desc", &desc, PluginFieldType::kUNKNOWN, sizeof desc};
        fields[1] = {"device", device_name.data(), PluginFieldType::kCHAR, static_cast<int32_t>(device_name.size())};
        collection.nbFields = 2;
        collection.fields = fields;
        return &collection;
    }

  private:
    Device device;
    std::string device_name;
    pw_attention_desc desc;
    pw_needs needs;
    PluginField fields[2];
    PluginFieldCollection collection{};
};

class AttentionCreator final : public IPluginCreatorV3One {
  public:
    AsciiChar const *getPluginName() const noexcept override { return NAME; }
    AsciiChar const *getPluginVersion() const noexcept override { return VERSION; }
    AsciiChar const *getPluginNamespace() const noexcept override { return NAMESPACE; }

    PluginFieldCollection const *getFieldNames() noexcept override { return &collection; }

    IPluginV3 *createPlugin(AsciiChar const *, PluginFieldCollection const *given, TensorRTPhase) noexcept override {
        try {
            return create(*given);
        } catch (std::exception const &failure) {
            refused(failure.what());
            return nullptr;
        }
    }

  private:
    static IPluginV3 *create(PluginFieldCollection const &given) {
        pw_attention_desc desc{};
        std::string name = "cuda:0";
        for (int32_t i = 0; i < given.nbFields; i++) {
            PluginField const &field = given.fields[i];
            if (std::strcmp(field.name, "device") == 0)
                name.assign(static_cast<char const *>(field.data), static_cast<size_t>(field.length));
            // An older engine's is shorter, and reads as 0 past its end; so says its struct_size.
            size_t const length = static_cast<size_t>(field.length);
            if (std::strcmp(field.name, "desc") == 0 && length <= sizeof desc) std::memcpy(&desc, field.data, length);
        }
        // What would take more inputs, or a type of its own for the output.
        if (desc.mask & ~PW_MASK_CAUSAL || desc.kv.scales == PW_KV_SCALES_TOKEN || desc.kv.v_offset != 0 ||
            desc.out_dtype != desc.q_dtype) {
            refused("takes the causal mask, no scales of tokens, keys and values apart, and one type for q and out");
            return nullptr;
        }
        pw_error error = no_error();
        pw_device *opened = nullptr;
        if (outcome(pw_device_open(name.data(), name.size(), nullptr, &opened, &error), error)) return nullptr;
        Device device(opened, pw_device_destroy);
        pw_needs needs{};
        needs.struct_size = sizeof needs;
        if (outcome(pw_attention_query(opened, &desc, &needs, &error), error)) return nullptr;
        return new Attention(device, name, desc, needs);
    }

    PluginField fields[2] = {{"desc", nullptr, PluginFieldType::kUNKNOWN, sizeof(pw_attention_desc)},
                             {"device", nullptr, PluginFieldType::kCHAR, 0}};
    PluginFieldCollection collection{2, fields};
};

REGISTER_TENSORRT_PLUGIN(AttentionCreator);

} // namespace
