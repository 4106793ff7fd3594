#include "prompts.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "dtg/storage.h"
#include "error.h"

namespace dtg::host {
namespace {

std::string contents_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    if (!file || !(text << file.rdbuf())) engine_error(path + " cannot be read");
    return text.str();
}

// A tensor of a safetensors file as fp32: eight bytes with the length of the header, the header in
// JSON, the values.
class SafeTensors {
  public:
    explicit SafeTensors(const std::string& path) : path_(path), bytes_(contents_of(path)) {
        std::uint64_t length = 0;
        for (std::size_t i = 0; i < 8 && bytes_.size() >= 8; ++i) {
            length |= std::uint64_t{static_cast<unsigned char>(bytes_[i])} << 8 * i;
        }
        if (length == 0 || length > bytes_.size() - 8) damaged("its header is cut short");
        header_ = Json::parse(std::string_view(bytes_).substr(8, length));
        start_ = 8 + length;
    }

    Tensor floats(const std::string& name) const {
        const Json* entry = header_.find(name);
        if (!entry) damaged("there is no " + name);
        const auto place = entry->at("data_offsets").integers();
        const std::string& type = entry->at("dtype").string();
        Tensor made(Type::kFloat32, entry->at("shape").integers());
        const std::int64_t size = type == "F32" ? 4 : type == "BF16" ? 2 : 0;
        if (size == 0) damaged(name + " is of the type " + type + ", not F32 or BF16");
        const auto room = static_cast<std::int64_t>(bytes_.size() - start_);
        if (place.size() != 2 || place[0] < 0 || place[1] > room ||
            place[1] - place[0] != size * made.count()) {
            damaged(name + " is cut short");
        }
        const char* from = bytes_.data() + start_ + place[0];
        for (std::int64_t i = 0; i < made.count(); ++i) {
            made.floats()[i] = value(from + size * i, size);
            if (!std::isfinite(made.floats()[i])) damaged(name + " holds values that are not finite");
        }
        return made;
    }

  private:
    static float value(const char* from, std::int64_t size) {
        std::uint32_t bits = 0;
        std::memcpy(reinterpret_cast<char*>(&bits) + 4 - size, from,
                    static_cast<std::size_t>(size));
        return from_bits(bits);
    }

    [[noreturn]] void damaged(const std::string& reason) const {
        engine_error(path_ + " is no file of prompt embeddings for this model: " + reason);
    }

    const std::string path_, bytes_;
    Json header_;
    std::size_t start_ = 0;
};

Tensor tags_of(const Json& known, const std::string (&prompts)[2]) {
    Tensor tags(Type::kInt64, {2});
    for (int row = 0; row < 2; ++row) {
        std::int64_t index = 0;
        std::string names;
        bool found = false;
        for (const Json& tag : known.array()) {
            if (!found && tag.string() == prompts[row]) found = true;
            if (!found) ++index;
            names += (names.empty() ? "" : ", ") + tag.string();
        }
        if (!found) {
            config_error("the prompt of mini is a quality tag, one of " + names + ", not \"" +
                         prompts[row] + "\"");
        }
        tags.integers()[row] = index;
    }
    return tags;
}

// (2, tokens, D), filled up with zeros, as Wan's own encoder does.
Tensor text_of(const std::string& path, std::int64_t tokens, std::int64_t width) {
    const SafeTensors file(path);
    Tensor text = Tensor::zeros({2, tokens, width});
    const char* const names[] = {"prompt_embeds", "negative_prompt_embeds"};
    for (std::int64_t row = 0; row < 2; ++row) {
        const Tensor part = file.floats(names[row]);
        const Shape& shape = part.shape();
        if (shape.size() != 3 || shape[0] != 1 || shape[2] != width) {
            engine_error(path + ": " + names[row] + " is " + written(shape) + ", not (1, L, " +
                         std::to_string(width) + ")");
        }
        if (shape[1] > tokens) {
            config_error("the prompt embeddings have " + std::to_string(shape[1]) +
                         " tokens: the bundle takes up to " + std::to_string(tokens));
        }
        std::memcpy(text.floats() + row * tokens * width, part.data(), part.bytes());
    }
    return text;
}

std::string embeds_of(const Bundle& bundle, const Json& model, const BackboneFacts& facts,
                      const std::string (&prompts)[2], const char* given) {
    if (given) return given;
    if (model.at("prompts").is_null()) {
        config_error(bundle.folder() + " holds no prompts: give their embeddings (prompt_embeds)");
    }
    if (prompts[0] != facts.prompt || prompts[1] != facts.negative_prompt) {
        config_error(bundle.folder() + " has no text encoder, and holds the embeddings of its own " +
                     "prompts alone: give those of others as a file (prompt_embeds)");
    }
    return (std::filesystem::path(bundle.folder()) / model.at("prompts").string()).string();
}

}  // namespace

std::pair<std::string, Tensor> prompt_input(const Bundle& bundle, const BackboneFacts& facts,
                                            const dtg_settings& settings) {
    const Json& model = *bundle.model("backbone");
    const std::string prompts[2] = {
        settings.prompt ? settings.prompt : facts.prompt,
        settings.negative_prompt ? settings.negative_prompt : facts.negative_prompt};
    if (const Json& tags = model.at("tags"); !tags.is_null()) {
        return {"tags", tags_of(tags, prompts)};
    }
    std::int64_t width = 0;
    for (const TensorSpec& spec : bundle.component("condition.0").inputs) {
        if (spec.name == "text") width = std::stoll(spec.axes.back());
    }
    const std::string path = embeds_of(bundle, model, facts, prompts, settings.prompt_embeds);
    return {"text", text_of(path, model.at("text_tokens").integer(), width)};
}

}  // namespace dtg::host
