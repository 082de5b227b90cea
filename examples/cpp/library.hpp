/* The library as C++ likes it: failures are thrown, handles go by themselves, and a kernel has its
 * memory. */
#ifndef PAGEWISE_EXAMPLES_LIBRARY_HPP
#define PAGEWISE_EXAMPLES_LIBRARY_HPP

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <pagewise.h>
#include <stdexcept>
#include <string>

struct Failure : std::runtime_error {
    explicit Failure(const std::string &what) : std::runtime_error(what) {}
};

inline void check(pw_status status, const pw_error &error) {
    if (status != PW_OK) throw Failure(std::string(error.field) + ": " + error.message);
}

/* A struct of the library, filled. */
template <class Struct, class Fill> Struct make(Fill fill) {
    Struct made{};
    made.struct_size = sizeof made;
    fill(made);
    return made;
}

inline pw_error no_error() { return make<pw_error>([](pw_error &) {}); }

/* Any function of the library: the error is always its last argument. */
template <class Function, class... Given> void call(Function function, Given... given) {
    pw_error error = no_error();
    check(function(given..., &error), error);
}

template <auto destroy> struct Destroy {
    template <class Handle> void operator()(Handle *handle) const { destroy(handle); }
};
using Device = std::unique_ptr<pw_device, Destroy<pw_device_destroy>>;
using Pages = std::unique_ptr<pw_pages, Destroy<pw_pages_destroy>>;
using Table = std::unique_ptr<pw_table, Destroy<pw_table_destroy>>;
using Prefixes = std::unique_ptr<pw_prefixes, Destroy<pw_prefixes_destroy>>;
using Grammars = std::unique_ptr<pw_grammars, Destroy<pw_grammars_destroy>>;
using Matcher = std::unique_ptr<pw_matcher, Destroy<pw_matcher_destroy>>;
using Masker = std::unique_ptr<pw_masker, Destroy<pw_masker_destroy>>;

/* What a function creates whose last argument but the error is the handle. */
template <class Handle, class Create, class... Given> Handle create(Create create, Given... given) {
    typename Handle::pointer handle = nullptr;
    call(create, given..., &handle);
    return Handle(handle);
}

using Room = std::unique_ptr<void, Destroy<std::free>>;

inline Room room(uint64_t bytes, uint64_t alignment) {
    return Room(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment));
}

/* A kernel with its memory: planned once a step, run once a layer. */
template <class Desc, class Args, auto query_of, auto plan_of, auto run_of> class Kernel {
  public:
    template <class Fill> Kernel(const Device &on, Fill fill) : device(on.get()), desc(make<Desc>(fill)) {
        pw_needs needs = make<pw_needs>([](pw_needs &) {});
        call(query_of, device, &desc, &needs);
        plan_room = room(needs.plan_bytes, needs.alignment);
        workspace = room(needs.workspace_bytes, needs.alignment);
        given = {plan_room.get(), needs.plan_bytes, workspace.get(), needs.workspace_bytes};
    }

    template <class... Lens> void plan(const Lens &...lens) {
        call(plan_of, device, &desc, lens..., plan_room.get(), given.plan_bytes);
    }

    template <class Fill> void run(Fill fill) {
        Args args = make<Args>(fill);
        args.run = given;
        call(run_of, device, &desc, &args, nullptr);
    }

  private:
    const pw_device *device;
    Desc desc;
    Room plan_room, workspace;
    pw_run given{};
};

#define KERNEL(Name, kernel) \
    using Name = Kernel<kernel##_desc, kernel##_args, kernel##_query, kernel##_plan, kernel##_run>
KERNEL(Embed, pw_embed);
KERNEL(Norm, pw_norm);
KERNEL(Matmul, pw_matmul);
KERNEL(Rope, pw_rope);
KERNEL(AppendKv, pw_append_kv);
KERNEL(VarlenMask, pw_varlen_mask);
KERNEL(Attention, pw_attention);
KERNEL(Activation, pw_activation);
KERNEL(Gather, pw_gather);
KERNEL(LogitMask, pw_logit_mask);
KERNEL(Sample, pw_sample);
KERNEL(SpecVerify, pw_spec_verify);

#endif
