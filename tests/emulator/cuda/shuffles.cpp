/* Shuffles and votes: what lanes of a warp tell each other. */
#include "builtins.h"

namespace emulator {

namespace {

struct Shuffle {
    uint64_t bits;
    uint32_t source;
    const Site &site;
};

void perform_shuffle(void *const *operands, uint32_t mask) {
    uint64_t brought[warp_size];
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        uint32_t lane = __builtin_ctz(rest);
        brought[lane] = static_cast<const Shuffle *>(operands[lane])->bits;
    }
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        uint32_t lane = __builtin_ctz(rest);
        auto &shuffle = *static_cast<Shuffle *>(operands[lane]);
        if ((mask >> shuffle.source & 1) == 0) {
            uint32_t first = position.thread.x / warp_size * warp_size;
            fault_of(first + lane, EMULATED_COLLECTIVE, shuffle.site,
                     "takes from lane %u in a shuffle whose mask %08x leaves that out",
                     shuffle.source, mask);
        }
        shuffle.bits = brought[shuffle.source];
    }
}

void perform_ballot(void *const *operands, uint32_t mask) {
    uint32_t votes = 0;
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        uint32_t lane = __builtin_ctz(rest);
        votes |= *static_cast<const uint32_t *>(operands[lane]) << lane;
    }
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        *static_cast<uint32_t *>(operands[__builtin_ctz(rest)]) = votes;
    }
}

constexpr Collective shuffle_collective{"a shuffle", perform_shuffle};
constexpr Collective ballot_collective{"a vote", perform_ballot};

} // namespace

uint64_t shuffle(uint32_t mask, uint64_t bits, uint32_t source, const Site &site) {
    Shuffle shuffle{bits, source, site};
    rendezvous(shuffle_collective, mask, &shuffle, site);
    return shuffle.bits;
}

uint32_t ballot(uint32_t mask, bool predicate, const Site &site) {
    uint32_t votes = predicate;
    rendezvous(ballot_collective, mask, &votes, site);
    return votes;
}

} // namespace emulator
